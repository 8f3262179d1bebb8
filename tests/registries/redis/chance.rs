//! Whatever happens, in whatever order: in the end the source knows what the server has.

use super::{table, trusting};
use crate::suite::{PATIENCE, ports};
use crate::support::redis::{Redis, words};
use crate::support::watched::Watched;
use std::time::Duration;
use wayside::base::chance::Chance;

/// The ports that the server has now: of keys, and of fields of the hash.
async fn truth(redis: &Redis) -> Vec<u16> {
    let keys: Vec<String> = redis.ask(&words(&["KEYS", "services:users:*"])).await;
    let fields: Vec<String> = redis.ask(&words(&["HKEYS", "services:users"])).await;
    let port = |name: &String| name.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let mut ports: Vec<u16> = keys.iter().chain(&fields).filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

#[tokio::test]
async fn the_source_knows_what_the_server_has() {
    for seed in 1..=3 {
        let redis = Redis::start().await;
        let mut chance = Chance(seed);
        let mut watched = Watched::start(&table(redis.address, ""), vec![trusting("users")]);
        let mut known = ports(&watched.until(PATIENCE, |_| true).await);
        for _ in 0..15 {
            for _ in 0..chance.below(60) {
                let name = |port: usize| format!("127.0.0.1:{}", 9001 + port);
                let (one, other) = (name(chance.below(12)), name(12 + chance.below(12)));
                let (key, ttl) = (format!("services:users:{one}"), (1 + chance.below(400)).to_string());
                match chance.below(40) {
                    0..=9 => redis.run(&["SET", &key, ""]).await,
                    10..=17 => redis.run(&["SET", &key, "{}", "PX", &ttl]).await,
                    18..=25 => redis.run(&["DEL", &key]).await,
                    26..=29 => redis.run(&["HSET", "services:users", &other, ""]).await,
                    30..=33 => redis.run(&["HDEL", "services:users", &other]).await,
                    34 => redis.run(&["PEXPIRE", "services:users", &ttl]).await,
                    35 => redis.run(&["PERSIST", "services:users"]).await,
                    36 => redis.run(&["COPY", "services:users", "services:other", "REPLACE"]).await,
                    37 => redis.run(&["COPY", "services:other", "services:users", "REPLACE"]).await,
                    38 => redis.run(&["FLUSHALL"]).await,
                    _ => redis.run(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await,
                }
            }
            // Until nothing more is told, and both know the same.
            let settled = async {
                loop {
                    match tokio::time::timeout(Duration::from_millis(100), watched.next(PATIENCE)).await {
                        Ok(Ok(seen)) => known = ports(&seen),
                        Ok(Err(_)) => {}
                        Err(_) if known == truth(&redis).await => break,
                        Err(_) => {}
                    }
                }
            };
            let settled = tokio::time::timeout(PATIENCE, settled).await;
            assert!(settled.is_ok(), "seed {seed}: known {known:?}, there {:?}", truth(&redis).await);
        }
    }
}
