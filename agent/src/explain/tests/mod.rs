mod cluster;
mod dns;
mod policy;
mod question;
mod service;
mod tables;
