//! Each source against the real registry: the suite that all pass, through a network that fails, and what is special to
//! each. Prints how long changes take (`--nocapture`).

#[path = "registries/consul.rs"]
mod consul;
#[path = "registries/dns.rs"]
mod dns;
#[path = "registries/etcd.rs"]
mod etcd;
#[path = "registries/gateway.rs"]
mod gateway;
#[path = "registries/redis.rs"]
mod redis;
#[path = "registries/nacos.rs"]
mod nacos;
#[path = "registries/register.rs"]
mod register;
#[path = "registries/shelves.rs"]
mod shelves;
#[path = "registries/stores.rs"]
mod stores;
#[path = "registries/suite.rs"]
mod suite;
#[path = "registries/wire.rs"]
mod wire;
#[path = "registries/zookeeper.rs"]
mod zookeeper;
mod support;
