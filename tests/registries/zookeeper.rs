//! The `zookeeper` source against a real ZooKeeper.

use crate::suite::{self, PATIENCE, Registry, entry, ports};
use crate::support::certificates::Authority;
use crate::support::servers::Process;
use crate::support::watched::{Watched, lookup};
use crate::support::zookeeper::ZooKeeper;
use crate::wire::{State, Wire};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use wayside::base::secret::Secret;
use wayside::discovery::registry::Kind;
use wayside::discovery::registry::zookeeper::message::{Answer, Refusal, Request, Watch};
use wayside::discovery::registry::zookeeper::{Heard, Session};
use wayside::discovery::{Entry, Lookup};

fn table(address: SocketAddr, more: &str) -> String {
    format!("kind = \"zookeeper\"\naddress = \"{address}\"\npath = \"/services\"\nconfirm_after = \"1s\"\n{more}")
}

impl Registry for ZooKeeper {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn table(&self, address: SocketAddr) -> String {
        table(address, "")
    }

    async fn put(&self, service: &str, entry: &Entry) {
        let (address, value) = (entry.address, suite::value(entry));
        ZooKeeper::put(self, &format!("/services/{service}/{address}"), value.as_bytes()).await;
    }

    async fn remove(&self, service: &str, address: SocketAddr) {
        self.delete(&format!("/services/{service}/{address}")).await;
    }

    async fn garbage(&self, service: &str) {
        ZooKeeper::put(self, &format!("/services/{service}/nowhere"), b"\xff\0").await;
    }

    async fn wipe(&self, service: &str) {
        let all = (9001..=9006).map(|port| format!("/services/{service}/{}", entry(port).address));
        self.delete_all(&all.chain([format!("/services/{service}")]).collect::<Vec<_>>()).await;
    }

    fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn start_again(&mut self) {
        ZooKeeper::start_again(self).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_routed_at_once() {
    crate::gateway::propagation(&ZooKeeper::start().await, "zookeeper", 50).await;
}

#[tokio::test]
async fn all_that_every_source_does() {
    suite::all(&mut ZooKeeper::start().await).await;
}

#[tokio::test]
async fn names_and_data_are_read_in_all_their_forms() {
    let server = ZooKeeper::start().await;
    let mut watched = Watched::start(&table(server.address, ""), vec![lookup("users")]);
    let eu = Lookup { registered_as: "users".to_owned(), tags: vec!["eu".to_owned()], ..lookup("people") };
    let mut tagged = Watched::start(&table(server.address, ""), vec![eu]);
    // Not even the root is there.
    watched.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
    tagged.until(PATIENCE, |seen| seen.endpoints.is_empty()).await;
    server.put("/services/users/127.0.0.1:9001", b"").await;
    server.put("/services/users/b", b"127.0.0.1:9002").await;
    let ours = br#"{"address":"127.0.0.1:9003","weight":3,"tags":["us","eu"]}"#;
    server.put("/services/users/c", ours).await;
    let curators = br#"{"name":"users","id":"4f9c","address":"127.0.0.1","port":9004,"sslPort":null,"payload":
        {"@class":"com.example.Details","x":1},"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":null}"#;
    server.put("/services/users/4f9c", curators).await;
    server.put("/services/users/bytes", b"\xff\xfe\0").await;
    // Neither is an endpoint of `users`.
    server.put("/services/users-v2/127.0.0.1:9005", b"").await;
    server.put("/services/users/127.0.0.1:9001/below", b"127.0.0.1:9006").await;
    let seen = watched.until(PATIENCE, |seen| seen.skipped == 1 && seen.endpoints.len() == 4).await;
    assert_eq!((ports(&seen), seen.left_out[0].entry.as_str()), (vec![9001, 9002, 9003, 9004], "bytes"));
    tagged.until(PATIENCE, |seen| ports(seen) == [9003]).await;
    // The service goes as a whole, and is made again.
    server.delete("/services/users/127.0.0.1:9001/below").await;
    for name in ["127.0.0.1:9001", "b", "c", "4f9c", "bytes"] {
        server.delete(&format!("/services/users/{name}")).await;
    }
    server.delete("/services/users").await;
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    server.put("/services/users/127.0.0.1:9007", b"").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9007]).await;
    assert_eq!(watched.problems, [""; 0]);
}

#[tokio::test]
async fn a_session_that_somebody_ended_is_followed_by_another() {
    let server = ZooKeeper::start().await;
    server.put("/services/users/127.0.0.1:9001", b"").await;
    let mut watched = Watched::start(&table(server.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    watched.fewest = None;
    for port in [9002, 9004] {
        for session in server.sessions().await {
            server.end(session).await;
        }
        watched.problem(PATIENCE).await;
        server.put(&format!("/services/users/127.0.0.1:{port}"), b"").await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&port)).await;
        // And it is followed on.
        server.put(&format!("/services/users/127.0.0.1:{}", port + 1), b"").await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&(port + 1))).await;
    }
    // And one that ended because the server stood still for longer than it lasts.
    server.process.pause();
    watched.problem(PATIENCE).await;
    let nothing = watched.until(PATIENCE, |seen| seen.endpoints.is_empty());
    assert!(tokio::time::timeout(Duration::from_secs(4), nothing).await.is_err());
    server.process.go_on();
    for port in [9006, 9007] {
        server.put(&format!("/services/users/127.0.0.1:{port}"), b"").await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&port)).await;
    }
    assert!(watched.fewest >= Some(1), "{:?}", watched.fewest);
}

#[tokio::test]
async fn a_server_that_lost_its_data_takes_nothing_away_at_once() {
    let mut server = ZooKeeper::start().await;
    for port in 9001..=9005 {
        server.put(&format!("/services/users/127.0.0.1:{port}"), b"").await;
    }
    let mut watched = Watched::start(&table(server.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
    watched.fewest = None;
    server.forget();
    server.start_again().await;
    watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    assert_eq!(watched.fewest, Some(5));
    server.put("/services/users/127.0.0.1:9009", b"").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9009]).await;
}

#[tokio::test]
async fn who_may_not_read_is_told_so_and_others_are_read() {
    let server = ZooKeeper::start().await;
    server.put("/services/users/127.0.0.1:9001", b"").await;
    server.put("/services/open/127.0.0.1:9002", b"").await;
    server.put("/services/open/127.0.0.1:9003", b"").await;
    server.protect("/services/open/127.0.0.1:9003", "gw", "pw").await;
    server.protect("/services/users/127.0.0.1:9001", "gw", "pw").await;
    server.protect("/services/users", "gw", "pw").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "hunter2").unwrap();
    let login = format!("username = \"gw\"\npassword_file = {file:?}");
    for more in ["", &login] {
        let mut watched = Watched::start(&table(server.address, more), vec![lookup("users")]);
        let problem = watched.problem(PATIENCE).await;
        assert!(problem.contains("/services/users: ") && problem.contains("NoAuth"), "{problem}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
    let mut watched = Watched::start(&table(server.address, &login), vec![lookup("users"), lookup("open")]);
    let (service, seen) = watched.any(PATIENCE).await;
    assert_eq!((&*service, ports(&seen), seen.skipped), ("open", vec![9002], 1));
    assert_eq!(seen.left_out[0].entry, "127.0.0.1:9003");
    let problem = watched.problem(PATIENCE).await;
    assert!(problem.contains("/services/users: "), "{problem}");
    // The other one is followed all the same, and the right password opens it without a restart.
    server.put("/services/open/127.0.0.1:9004", b"").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9002, 9004]).await;
    std::fs::write(&file, "pw\n").unwrap();
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
}

#[tokio::test]
async fn the_next_member_is_asked_when_one_is_away() {
    let server = ZooKeeper::start().await;
    server.put("/services/users/127.0.0.1:9001", b"").await;
    let (one, two) = (Wire::to(server.address).await, Wire::to(server.address).await);
    let addresses = format!("[\"{}\", \"{}\"]", one.address, two.address);
    let table = table(one.address, "").replace(&format!("\"{}\"", one.address), &addresses);
    let mut watched = Watched::start(&table, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    one.set(State::Broken);
    watched.problem(PATIENCE).await;
    server.put("/services/users/127.0.0.1:9002", b"").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    two.set(State::Dark);
    one.set(State::Passing);
    watched.problem(PATIENCE).await;
    server.put("/services/users/127.0.0.1:9003", b"").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002, 9003]).await;
}

#[tokio::test]
async fn changes_come_within_milliseconds() {
    let server = ZooKeeper::start().await;
    server.put("/services/users/127.0.0.1:9001", b"").await;
    let mut watched = Watched::start(&table(server.address, ""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    let mut times = Vec::new();
    for port in 9002..9022 {
        let from = Instant::now();
        server.put(&format!("/services/users/127.0.0.1:{port}"), b"").await;
        watched.until(PATIENCE, |seen| ports(seen).contains(&port)).await;
        times.push(from.elapsed());
    }
    times.sort();
    println!("median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
}

#[tokio::test]
async fn over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.issue(&["localhost"], folder.path(), "server");
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let server = ZooKeeper::with_tls(folder.path()).await;
    server.put("/services/users/127.0.0.1:9001", b"").await;
    let tls = format!("tls = {{ ca = {:?}, server_name = \"localhost\" }}", folder.path().join("ca.pem"));
    let mut watched = Watched::start(&table(server.secure, &tls), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    server.put("/services/users/127.0.0.1:9002", b"").await;
    watched.until(PATIENCE, |seen| ports(seen) == [9001, 9002]).await;
    // Nobody speaks TLS there.
    let problem = Watched::start(&table(server.address, &tls), vec![lookup("users")]).problem(PATIENCE).await;
    assert!(problem.contains("TLS handshake"), "{problem}");
}

#[tokio::test]
async fn a_session_is_taken_up_again_with_what_ends_with_it() {
    let server = ZooKeeper::start().await;
    server.put("/services/users", b"").await;
    let member = server.address.to_string();
    let lasts = Duration::from_secs(20);
    let path = "/services/users/127.0.0.1:9001";
    let owner = async |session: &mut Session| match session.ask(Request::Exists(path, Watch::No)).await.unwrap() {
        Answer::Node(stat) => Some(stat.owner),
        Answer::Refused(Refusal::NoNode) => None,
        other => panic!("{other:?}"),
    };
    let mut session = Session::open(&member, None, lasts, None).await.unwrap();
    session.authenticate("gw", &Secret::new("pw")).await.unwrap();
    let create = Request::Create { path, data: b"one", ephemeral: true };
    assert_eq!(session.ask(create).await.unwrap(), Answer::Done);
    assert_eq!(session.ask(create).await.unwrap(), Answer::Refused(Refusal::Exists));
    let ticket = session.ticket().clone();
    assert_eq!(owner(&mut session).await, Some(ticket.session));
    // The connection ends, the session does not.
    drop(session);
    let mut session = Session::open(&member, None, lasts, Some(&ticket)).await.unwrap();
    assert_eq!(session.ticket(), &ticket);
    assert_eq!(owner(&mut session).await, Some(ticket.session));
    let mut other = Session::open(&member, None, lasts, None).await.unwrap();
    assert_eq!(other.ask(Request::Follow("/services")).await.unwrap(), Answer::Done);
    assert!(matches!(session.ask(Request::Set(path, b"two")).await.unwrap(), Answer::Node(stat) if stat.version == 1));
    let change = async |session: &mut Session| loop {
        match session.heard((Instant::now() + PATIENCE).into()).await.unwrap() {
            Heard::Beat => {}
            heard => return heard,
        }
    };
    assert_eq!(change(&mut other).await, Heard::Change(path.to_owned()));
    assert_eq!(other.ask(Request::Get(path, Watch::No)).await.unwrap(), Answer::Data(b"two".to_vec()));
    session.close().await.unwrap();
    assert_eq!(change(&mut other).await, Heard::Change(path.to_owned()));
    while owner(&mut other).await.is_some() {
        change(&mut other).await;
    }
    assert_eq!(other.ask(Request::Delete(path)).await.unwrap(), Answer::Refused(Refusal::NoNode));
    // A session that has ended is followed by another.
    let session = Session::open(&member, None, lasts, Some(&ticket)).await.unwrap();
    assert_ne!(session.ticket().session, ticket.session);
}

#[tokio::test]
async fn what_is_no_zookeeper_is_told() {
    let table = |address: SocketAddr| table(address, "");
    let [port] = crate::support::servers::free_ports();
    let refused = Watched::start(&table(([127, 0, 0, 1], port).into()), vec![lookup("users")]).problem(PATIENCE).await;
    assert!(refused.contains("cannot connect"), "{refused}");
    let failure = Session::open(&format!("127.0.0.1:{port}"), None, Duration::from_secs(3), None).await.unwrap_err();
    assert_eq!(failure.kind, Kind::Unreachable);
}

#[tokio::test]
async fn of_three_members_one_after_the_other_dies() {
    let mut members = ZooKeeper::three().await;
    members[0].put("/services/users/127.0.0.1:9001", b"").await;
    let all = members.iter().map(|member| format!("{:?}", member.address.to_string())).collect::<Vec<_>>().join(", ");
    let first = format!("{:?}", members[0].address.to_string());
    let table = table(members[0].address, "").replace(&first, &format!("[{all}]"));
    let mut watched = Watched::start(&table, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| ports(seen) == [9001]).await;
    watched.fewest = None;
    for (number, port) in [(0, 9002), (1, 9003), (2, 9004)] {
        members[number].process.kill();
        members[(number + 1) % 3].put(&format!("/services/users/127.0.0.1:{port}"), b"").await;
        watched.until(PATIENCE, |seen| ports(seen) == (9001..=port).collect::<Vec<_>>()).await;
        members[number].start_again().await;
    }
    assert!(watched.fewest >= Some(1), "{:?}", watched.fewest);
}
