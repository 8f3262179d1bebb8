//! Who may read what, and how changes are heard of where not everything is allowed.

use super::{table, trusting};
use crate::suite::{PATIENCE, Registry, entry, ports};
use crate::support::redis::{Redis, until, words};
use crate::support::watched::{Watched, lookup};
use crate::wire::{State, Wire};

/// What a user needs to read services, and nothing else.
pub(super) const MINIMAL: &str =
    "resetkeys ~services:* resetchannels -@all +scan +get +pttl +hgetall +ping +hello +client|tracking";

impl Redis {
    async fn user(&self, name: &str, rules: &str) {
        let mut command = words(&["ACL", "SETUSER", name, "reset", "on"]);
        command.arg(rules.split(' ').collect::<Vec<_>>());
        self.ask::<()>(&command).await;
    }

    /// How the connections of a user hear of changes: `t` and `B` for tracking in broadcast mode, and channels.
    async fn hears(&self, user: &str) -> String {
        let list: String = self.ask(&words(&["CLIENT", "LIST"])).await;
        let field = |line: &str, key: &str| {
            let found = line.split(' ').find_map(|field| field.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().to_owned()
        };
        let own = list.lines().filter(|line| field(line, "user") == user);
        let mut all: Vec<_> = own.map(|line| format!("{} {}", field(line, "flags"), field(line, "psub"))).collect();
        all.sort();
        all.join(", ")
    }
}

fn login(user: &str, password: &str, more: &str) -> String {
    format!("username = \"{user}\"\npassword = \"{password}\"\n{more}")
}

/// An endpoint comes and goes, is renewed, and ends.
async fn follows(redis: &Redis, watched: &mut Watched) {
    redis.put("users", &entry(9001)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    redis.run(&["HSET", "services:users", "127.0.0.1:9002", ""]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    redis.run(&["SET", "services:users:127.0.0.1:9003", "", "PX", "900"]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    redis.run(&["DEL", "services:users", "services:users:127.0.0.1:9001"]).await;
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
    assert_eq!(watched.problems, [""; 0]);
}

#[tokio::test]
async fn the_least_that_a_user_needs() {
    let redis = Redis::start().await;
    redis.user("gw", &format!(">pw {MINIMAL}")).await;
    let mut watched = Watched::start(&table(redis.address, &login("gw", "pw", "")), vec![trusting("users")]);
    watched.until(PATIENCE, |_| true).await;
    assert_eq!(redis.hears("gw").await, "tB 0");
    follows(&redis, &mut watched).await;
    // Without the right to read parts, values are read whole.
    redis.run(&["SET", "services:users:large", &"x".repeat(1 << 20)]).await;
    redis.put("users", &entry(9004)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9004] && seen.skipped == 1).await;
}

#[tokio::test]
async fn without_tracking_by_notifications_else_by_a_scan() {
    let redis = Redis::start().await;
    let less = MINIMAL.replace(" +client|tracking", "");
    redis.user("listens", &format!(">pw {less} &__keyspace@0__:services:* +psubscribe")).await;
    redis.user("knows", &format!(">pw {less} &__keyspace@0__:services:* +psubscribe +config|get")).await;
    redis.user("scans", &format!(">pw {less}")).await;
    for (user, interval, heard) in [("scans", "100ms", "N 0"), ("listens", "100ms", "P 1"), ("knows", "100ms", "N 0")] {
        let keys = login(user, "pw", &format!("interval = \"{interval}\""));
        let mut watched = Watched::start(&table(redis.address, &keys), vec![trusting("users")]);
        watched.until(PATIENCE, |_| true).await;
        assert_eq!(redis.hears(user).await, heard, "{user}");
        follows(&redis, &mut watched).await;
    }
    redis.run(&["CONFIG", "SET", "notify-keyspace-events", "AK"]).await;
    for user in ["listens", "knows"] {
        let keys = login(user, "pw", "interval = \"1h\"");
        let mut watched = Watched::start(&table(redis.address, &keys), vec![trusting("users")]);
        watched.until(PATIENCE, |_| true).await;
        assert_eq!(redis.hears(user).await, "P 1", "{user}");
        follows(&redis, &mut watched).await;
    }
}

#[tokio::test]
async fn a_server_of_before_resp3() {
    let redis = Redis::with(&["--rename-command", "HELLO", "", "--notify-keyspace-events", "AK"]).await;
    let mut watched = Watched::start(&table(redis.address, "interval = \"1h\""), vec![trusting("users")]);
    watched.until(PATIENCE, |_| true).await;
    // One connection that asks, and one that listens, beside that of the test.
    assert_eq!(redis.hears("default").await, "N 0, N 0, P 1");
    follows(&redis, &mut watched).await;
    redis.run(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    watched.problem(PATIENCE).await;
    redis.put("users", &entry(9001)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
}

#[tokio::test]
async fn who_may_not_read_is_told_so() {
    let redis = Redis::start().await;
    redis.put("users", &entry(9001)).await;
    redis.user("gw", &format!(">pw {MINIMAL}")).await;
    redis.user("other", &format!(">pw {}", MINIMAL.replace("~services", "~other"))).await;
    redis.user("blind", ">pw ~* -@all +ping +hello").await;
    let told = async |keys: &str| {
        let mut watched = Watched::start(&table(redis.address, keys), vec![lookup("users")]);
        watched.problem(PATIENCE).await
    };
    for (keys, problem) in [
        (login("gw", "hunter2", ""), "refuses the user name or the password"),
        (login("nobody", "hunter2", ""), "refuses the user name or the password"),
        (login("other", "pw", ""), "NOPERM"),
        (login("blind", "pw", ""), "NOPERM"),
    ] {
        let said = told(&keys).await;
        println!("  {said}");
        assert!(said.starts_with(&redis.address.to_string()) && said.contains(problem), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let url = format!("kind = \"redis\"\naddress = \"redis://gw:pw@{}/0\"", redis.address);
    Watched::start(&url, vec![lookup("users")]).until(PATIENCE, |seen| ports(seen) == [9001]).await;
    redis.run(&["CONFIG", "SET", "requirepass", "hunter2"]).await;
    let said = told("").await;
    assert!(said.contains("wants a password: set `password`"), "{said}");
    let keys = "password = \"hunter2\"";
    let mut watched = Watched::start(&table(redis.address, keys), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
}

#[tokio::test]
async fn a_new_password_a_lost_right_and_a_deleted_user() {
    let redis = Redis::start().await;
    redis.put("users", &entry(9001)).await;
    redis.user("gw", &format!(">pw {MINIMAL}")).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "pw\n").unwrap();
    let wire = Wire::to(redis.address).await;
    let keys = format!("username = \"gw\"\npassword_file = {file:?}");
    let mut watched = Watched::start(&table(wire.address, &keys), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    watched.fewest = None;

    // Who is connected stays so; who connects needs the new one.
    redis.run(&["ACL", "SETUSER", "gw", "resetpass", ">new"]).await;
    redis.put("users", &entry(9002)).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    wire.set(State::Broken);
    watched.problem(PATIENCE).await;
    wire.set(State::Passing);
    let denied = watched.problem(PATIENCE).await;
    assert!(denied.contains("refuses the user name or the password"), "{denied}");
    std::fs::write(&file, "new\n").unwrap();
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;

    redis.run(&["ACL", "SETUSER", "gw", "-get"]).await;
    redis.put("users", &entry(9003)).await;
    let denied = watched.problem(PATIENCE).await;
    assert!(denied.contains("NOPERM") && denied.contains("get"), "{denied}");
    redis.run(&["ACL", "SETUSER", "gw", "+get"]).await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;

    redis.run(&["ACL", "DELUSER", "gw"]).await;
    until("the deleted user is refused", async || {
        watched.problem(PATIENCE).await.contains("refuses the user name or the password")
    })
    .await;
    redis.user("gw", &format!(">new {MINIMAL}")).await;
    redis.put("users", &entry(9004)).await;
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 4).await;
    assert!(watched.fewest >= Some(2), "{:?}", watched.fewest);
}
