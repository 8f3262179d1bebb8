//! What tests share: the real program on free ports, origins, clients, and the servers beside it.

pub mod certificates;
pub mod etcd;
pub mod fake_consul;
pub mod gateway;
pub mod heard;
pub mod nacos;
pub mod knot;
pub mod origin;
pub mod program;
pub mod raw;
pub mod redis;
pub mod saying;
pub mod servers;
pub mod shop;
pub mod watched;
pub mod zookeeper;
