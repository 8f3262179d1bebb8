//! Standard output and standard error in any state: neither traffic nor control nor the end depends on who reads them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{echo, get, get_as, until};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

/// What has become of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Its reader has ended.
    Gone,
    /// Its disk is full.
    Full,
    /// Nobody reads it, and it takes nothing more.
    Stuck,
    /// The same, and it does not wait.
    StuckAtOnce,
    /// The same of a socket.
    StuckSocket,
}

const STATES: [State; 5] = [State::Gone, State::Full, State::Stuck, State::StuckAtOnce, State::StuckSocket];

/// The stream, and what has to be kept for as long as it shall stay so.
fn stream(state: State) -> (OwnedFd, Option<OwnedFd>) {
    /// Writes until nothing more is taken.
    fn fill(to: impl AsFd, waits: bool) {
        rustix::io::ioctl_fionbio(&to, true).unwrap();
        while rustix::io::write(&to, &[b'x'; 4096]).is_ok() {}
        while rustix::io::write(&to, b"x").is_ok() {}
        rustix::io::ioctl_fionbio(&to, !waits).unwrap();
    }
    match state {
        State::Full => (std::fs::File::options().write(true).open("/dev/full").unwrap().into(), None),
        State::Gone => (std::io::pipe().unwrap().1.into(), None),
        State::Stuck | State::StuckAtOnce => {
            let (reader, writer) = std::io::pipe().unwrap();
            fill(&writer, state == State::Stuck);
            (writer.into(), Some(reader.into()))
        }
        State::StuckSocket => {
            let (reader, writer) = UnixStream::pair().unwrap();
            fill(&writer, true);
            (writer.into(), Some(reader.into()))
        }
    }
}

/// A gateway of which nobody has read where it is.
struct Gateway {
    child: Child,
    address: String,
    admin: String,
    folder: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONFIG: &str = "[gateway]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n\
                      [telemetry]\naccess_log = \"text\"\n[sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
                      [[routes]]\nmatch = { path_prefix = \"/one\" }\nservice = \"shop\"\n";

impl Gateway {
    fn start(output: impl Into<Stdio>, error: impl Into<Stdio>) -> Gateway {
        let folder = tempfile::tempdir().unwrap();
        let services = format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", echo());
        std::fs::write(folder.path().join("services.toml"), services).unwrap();
        let file = folder.path().join("wayside.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wayside"));
        command.arg("run").arg("--config").arg(&file).env("RUST_LOG", "trace");
        let mut child = command.stdin(Stdio::null()).stdout(output).stderr(error).spawn().unwrap();
        let mut listening = Vec::new();
        until("it listens", || {
            assert_eq!(child.try_wait().unwrap(), None);
            listening = ports(child.id());
            listening.len() == 2
        });
        let is_admin = |address: &String| get(address, "/healthz", &[]).contains("alive");
        // A worker begins to answer when control has begun.
        let admin = listening.iter().find(|address| is_admin(address)).expect("an admin").clone();
        let address = listening.iter().find(|address| **address != admin).unwrap().clone();
        Gateway { child, address, admin, folder }
    }

    fn answers(&self, path: &str) -> bool {
        get(&self.address, path, &[]).starts_with("HTTP/1.1 200")
    }

    fn metric(&self, name: &str) -> f64 {
        let page = get_as(&self.admin, "127.0.0.1", "/metrics", &[]);
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name).parse().unwrap()
    }
}

/// Where a process listens.
fn ports(pid: u32) -> Vec<String> {
    let Ok(opened) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let opened = opened.flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    let sockets: Vec<String> = opened
        .filter_map(|target| Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let listens = columns[3] == "0A" && sockets.iter().any(|socket| *socket == columns[9]);
        listens.then(|| u16::from_str_radix(columns[1].split_once(':').unwrap().1, 16).unwrap())
    };
    table.lines().skip(1).filter_map(port).map(|port| format!("127.0.0.1:{port}")).collect()
}

/// Serves, sees a change, and ends.
fn must_work(mut gateway: Gateway, state: State, dropped: &str) {
    until("it serves", || gateway.answers("/one"));
    // Lines enough for any queue or buffer on the way.
    for _ in 0..200 {
        assert!(gateway.answers("/one"), "{state:?}");
    }
    let file = gateway.folder.path().join("wayside.toml");
    for (old, new) in [("/one", "/two"), ("/two", "/three")] {
        std::fs::write(&file, CONFIG.replace("/one", new)).unwrap();
        until("the change is seen", || gateway.answers(new) && !gateway.answers(old));
    }
    if matches!(state, State::Gone | State::Full) {
        until("lines are counted", || gateway.metric(dropped) > 0.0);
    }
    let pid = gateway.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    let mut ended = None;
    until("it ends", || {
        ended = gateway.child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(0), "{state:?}");
}

#[test]
fn a_log_that_nobody_reads_holds_nothing_up() {
    for state in STATES {
        let (error, _kept) = stream(state);
        must_work(Gateway::start(Stdio::null(), error), state, "wayside_log_dropped_total");
    }
}

#[test]
fn an_output_that_nobody_reads_holds_nothing_up() {
    for state in STATES {
        let (output, _kept) = stream(state);
        must_work(Gateway::start(output, Stdio::null()), state, "wayside_access_log_dropped_total");
    }
}

#[test]
fn an_exit_code_does_not_depend_on_who_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.toml"), folder.path().join("bad.toml"));
    std::fs::write(&good, "[gateway]\n").unwrap();
    std::fs::write(&bad, "[gateway]\nworkers = 0\n").unwrap();
    for state in [State::Gone, State::Full] {
        for (command, file, code) in [("check", &good, 0), ("check", &bad, 1), ("run", &bad, 1)] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_wayside"));
            program.arg(command).arg("--config").arg(file).stdout(stream(state).0).stderr(stream(state).0);
            assert_eq!(program.status().unwrap().code(), Some(code), "{command} {} {state:?}", file.display());
        }
        let mut program = Command::new(env!("CARGO_BIN_EXE_wayside"));
        program.args(["policy", "new", "mine"]).current_dir(folder.path()).stdout(stream(state).0);
        assert_eq!(program.status().unwrap().code(), Some(0), "{state:?}");
        std::fs::remove_dir_all(folder.path().join("mine")).unwrap();
    }
}
