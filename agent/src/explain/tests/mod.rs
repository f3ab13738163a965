mod cluster;
mod dns;
mod frontends;
mod policy;
mod programs;
mod question;
mod service;
mod tables;
