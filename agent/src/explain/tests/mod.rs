mod cluster;
mod dns;
mod frontends;
mod policy;
mod question;
mod service;
mod tables;
