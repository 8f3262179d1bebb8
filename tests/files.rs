//! Files that people write while the gateway runs: half of them, nothing, something that is no file. Whatever lies there,
//! traffic goes on as it was, and control sees what comes next.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::program::{Program, echo, get, terminate, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const CONFIG: &str = "[sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
                      [[routes]]\nmatch = { path_prefix = \"/\" }\nservice = \"shop\"\n";

fn endpoints(count: usize) -> String {
    (0..count).map(|_| format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", echo())).collect()
}

fn start(services: &str, config: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("services.toml"), services).unwrap();
    Program::start(folder, config, &[])
}

fn write(gateway: &Program, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(gateway.folder().join(name), text).unwrap();
}

/// What `/services` says of `shop`.
fn shop(gateway: &Program) -> Value {
    let services: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    let services = services["services"].as_array().unwrap();
    services.iter().find(|service| service["name"] == "shop").cloned().unwrap_or_default()
}

fn held(gateway: &Program) -> bool {
    shop(gateway)["held"].is_string()
}

fn config_error(gateway: &Program) -> String {
    let snapshot: Value = serde_json::from_str(&gateway.ask("/snapshot")).unwrap();
    snapshot["config_error"].as_str().unwrap_or_default().to_owned()
}

/// Requests without end, until it is dropped: how many were answered, and that none failed.
struct Traffic {
    end: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Traffic {
    fn begin(gateway: &Program) -> Traffic {
        let (end, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (address, ends, counts) = (gateway.address.clone(), Arc::clone(&end), Arc::clone(&answered));
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !ends.load(Relaxed) {
                let answer = get(&address, "/", &[]);
                if !answer.starts_with("HTTP/1.1 200") {
                    failed.push(answer);
                }
                counts.fetch_add(1, Relaxed);
            }
            failed
        });
        Traffic { end, answered, thread: Some(thread) }
    }

    fn none_failed(mut self) {
        let before = self.answered.load(Relaxed);
        until("a few more", || self.answered.load(Relaxed) > before + 20);
        self.end.store(true, Relaxed);
        assert_eq!(self.thread.take().unwrap().join().unwrap(), Vec::<String>::new());
    }
}

#[test]
fn a_file_of_endpoints_that_is_half_written_or_empty_takes_none_away() {
    let all = endpoints(8);
    let gateway = start(&all, CONFIG);
    let traffic = Traffic::begin(&gateway);
    let first = &all[..all.find("\n[[").unwrap() + 1];
    for half in ["", " \n\n", "# written by a script\n", "[services.shop]\n", "[services.other]\n", first] {
        write(&gateway, "services.toml", half);
        until("it is held", || held(&gateway));
        assert_eq!(shop(&gateway)["endpoints"].as_array().unwrap().len(), 8, "{half:?}");
        write(&gateway, "services.toml", &all);
        until("it is whole again", || !held(&gateway));
    }
    traffic.none_failed();
    let (_, log) = gateway.stop();
    assert_eq!(log.iter().filter(|line| line.contains("the file's answer is held")).count(), 6, "{log:#?}");
}

#[test]
fn a_loss_that_stays_is_applied_and_an_allowed_one_at_once() {
    let confirmed = CONFIG.replace("path =", "confirm_after = \"200ms\"\npath =");
    let gateway = start(&endpoints(8), &confirmed);
    write(&gateway, "services.toml", endpoints(1));
    until("one is left", || shop(&gateway)["endpoints"].as_array().is_some_and(|left| left.len() == 1));
    write(&gateway, "services.toml", "");
    until("none is left", || gateway.get("/", &[]).starts_with("HTTP/1.1 503"));

    let allowed = CONFIG.replace("path =", "confirm_after = \"1h\"\npath =");
    let gateway = start(&endpoints(8), &format!("{allowed}[services.shop]\nsource = \"local\"\nallow_empty = true\n"));
    write(&gateway, "services.toml", "[services]\n");
    until("none is left", || gateway.get("/", &[]).starts_with("HTTP/1.1 503"));
    assert!(!held(&gateway));
}

#[test]
fn a_configuration_that_says_nothing_or_has_lost_much_changes_nothing() {
    let gateway = start(&endpoints(1), CONFIG);
    let good = std::fs::read_to_string(gateway.folder().join("wayside.toml")).unwrap();
    let traffic = Traffic::begin(&gateway);
    let table = &good[..good.find("[sources").unwrap()];
    let no_routes = &good[..good.find("[[routes").unwrap()];
    for (bad, why) in [
        ("", "it is empty"),
        (" \n\t\n", "it is empty"),
        ("# nothing but\n # comments\n", "it is empty"),
        ("[gateway]\n", "no listeners any more"),
        (table, "no sources any more"),
        (no_routes, "no routes any more"),
        // Half a table, and all but the end of the last line.
        (&good[..good.find("match =").unwrap()], "missing field"),
        (good.trim_end(), "it ends early"),
    ] {
        write(&gateway, "wayside.toml", bad);
        until(why, || config_error(&gateway).contains(why));
        gateway.signal("HUP");
        write(&gateway, "wayside.toml", &good);
        until("it is good again", || config_error(&gateway).is_empty());
    }
    traffic.none_failed();
    // What stays so is meant.
    write(&gateway, "wayside.toml", no_routes);
    until("no route is left", || gateway.get("/", &[]).starts_with("HTTP/1.1 404"));
    assert_eq!(config_error(&gateway), "");
}

/// Something that is no file, in the place of one.
fn put(path: &Path, kind: &str) {
    let _ = std::fs::remove_file(path);
    match kind {
        "a FIFO" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "a directory" => std::fs::create_dir(path).unwrap(),
        "a device" => std::os::unix::fs::symlink("/dev/zero", path).unwrap(),
        "a socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        other => unreachable!("{other}"),
    }
}

fn remove(path: &Path) {
    if std::fs::symlink_metadata(path).unwrap().is_dir() {
        std::fs::remove_dir(path).unwrap();
    } else {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn what_is_no_file_is_refused_by_its_kind_and_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let service = |folder: &Path| std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    service(folder.path());
    std::fs::write(folder.path().join("services.toml"), endpoints(2)).unwrap();
    let tls = "[services.other]\nsource = \"local\"\ntls = { ca = \"ca.pem\" }\n";
    let gateway = Program::start(folder, &format!("{CONFIG}{tls}"), &[]);
    let path = |name: &str| gateway.folder().join(name);
    let good = std::fs::read(path("wayside.toml")).unwrap();
    let services = std::fs::read(path("services.toml")).unwrap();
    let traffic = Traffic::begin(&gateway);
    for kind in ["a FIFO", "a directory", "a device", "a socket"] {
        let refused = format!("it is {kind}, and only regular files are read");
        for name in ["wayside.toml", "ca.pem"] {
            put(&path(name), kind);
            until(kind, || config_error(&gateway).contains(&refused));
            gateway.signal("HUP");
            assert!(config_error(&gateway).contains(name));
            remove(&path(name));
            service(gateway.folder());
            write(&gateway, "wayside.toml", &good);
            until("it is good again", || config_error(&gateway).is_empty());
        }
        put(&path("services.toml"), kind);
        assert!(gateway.logged("source failed").contains(&refused));
        until("it is stale", || shop(&gateway)["stale"] == true);
        remove(&path("services.toml"));
        write(&gateway, "services.toml", &services);
        until("it is good again", || shop(&gateway)["stale"] == false);
    }
    traffic.none_failed();
}

#[test]
fn before_the_start_as_well() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, file) in [("a FIFO", "fifo"), ("a directory", "directory"), ("a device", "device")] {
        let file = folder.path().join(file);
        put(&file, kind);
        for command in ["check", "run"] {
            let told = Command::new(env!("CARGO_BIN_EXE_wayside")).arg(command).arg("--config").arg(&file).output();
            let told = told.unwrap();
            let said = String::from_utf8(told.stderr).unwrap();
            assert!(told.status.code() == Some(1) && said.contains(&format!("it is {kind}")), "{said}");
        }
    }
    let file = folder.path().join("empty.toml");
    std::fs::write(&file, "# soon\n").unwrap();
    let told = Command::new(env!("CARGO_BIN_EXE_wayside")).arg("check").arg("--config").arg(&file).output().unwrap();
    assert!(String::from_utf8(told.stderr).unwrap().contains("empty.toml: it is empty"));
}

/// Processor time that a process has used, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    after_name[11].parse::<u64>().unwrap() + after_name[12].parse::<u64>().unwrap()
}

#[test]
fn a_configuration_that_stays_broken_costs_nothing_and_what_was_missing_is_seen() {
    let gateway = start(&endpoints(1), CONFIG);
    let good = std::fs::read_to_string(gateway.folder().join("wayside.toml")).unwrap();
    let missing = gateway.folder().join("later/ca.pem");
    let long = "# a long configuration\n".repeat(100_000);
    let tls = "[services.other]\nsource = \"local\"\ntls = { ca = \"later/ca.pem\" }\n";
    write(&gateway, "wayside.toml", format!("{good}{tls}{long}"));
    until("it is broken", || config_error(&gateway).contains("later/ca.pem: cannot be read"));
    let before = ticks(gateway.pid());
    // In this time, two seconds, it was read eight times, at more than half a second each.
    for _ in 0..20 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 200"));
    }
    let used = ticks(gateway.pid()) - before;
    assert!(used < 50, "{used} ticks");
    std::fs::create_dir(missing.parent().unwrap()).unwrap();
    std::fs::write(&missing, Authority::new().pem()).unwrap();
    until("it is good", || config_error(&gateway).is_empty());
}

#[test]
fn a_hundred_certificates_need_one_instance_and_are_renewed_at_once() {
    const MANY: usize = 100;
    let (folder, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let renew = |folder: &Path| {
        for number in 0..MANY {
            authority.issue(&[&format!("shop-{number}.example")], folder, &format!("c{number}"));
        }
    };
    renew(folder.path());
    std::fs::write(folder.path().join("services.toml"), endpoints(1)).unwrap();
    let pairs: Vec<String> = (0..MANY).map(|n| format!("{{ chain = \"c{n}.pem\", key = \"c{n}.key\" }}")).collect();
    let listen = format!("listen = [{{ address = \"127.0.0.1:0\", certificates = [{}] }}]\n", pairs.join(", "));
    let gateway = Program::start(folder, &format!("{listen}{CONFIG}"), &[]);
    let opened = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().flatten();
    let targets = opened.filter_map(|file| std::fs::read_link(file.path()).ok());
    assert_eq!(targets.filter(|target| target.as_os_str() == "anon_inode:inotify").count(), 1);
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.pid())).unwrap().count();
    assert!(threads < 40, "{threads}");
    renew(gateway.folder());
    let line = gateway.logged("certificates read again");
    assert!(line.contains("certificates=100"), "{line}");
    let (_, log) = gateway.stop();
    assert!(!log.iter().any(|line| line.contains("certificates")), "{log:?}");
}

#[test]
fn mounted_files_that_are_swapped_by_a_link_are_seen() {
    let gateway = start(&endpoints(1), CONFIG);
    let path = |name: &str| gateway.folder().join(name);
    let good = std::fs::read_to_string(path("wayside.toml")).unwrap();
    for (number, prefix) in [(1, "/one"), (2, "/two"), (3, "/three")] {
        let mounted = path(&format!("..{number}"));
        std::fs::create_dir(&mounted).unwrap();
        let mut file = std::fs::File::create(mounted.join("wayside.toml")).unwrap();
        file.write_all(good.replace("\"/\"", &format!("\"{prefix}\"")).as_bytes()).unwrap();
        std::os::unix::fs::symlink(format!("..{number}"), path("..new")).unwrap();
        std::fs::rename(path("..new"), path("..data")).unwrap();
        if number == 1 {
            std::os::unix::fs::symlink("..data/wayside.toml", path("link")).unwrap();
            std::fs::rename(path("link"), path("wayside.toml")).unwrap();
        }
        until(prefix, || gateway.get(prefix, &[]).starts_with("HTTP/1.1 200"));
    }
}

#[test]
fn without_inotify_files_are_looked_at_and_that_is_told_once() {
    for limit in ["max_inotify_instances", "max_inotify_watches"] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("services.toml"), endpoints(1)).unwrap();
        let file = folder.path().join("wayside.toml");
        let config = format!("[gateway]\nlisten = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\nworkers = 1\n{CONFIG}");
        std::fs::write(&file, &config).unwrap();
        // A user of its own, who has none.
        let limited = format!("echo 0 > /proc/sys/user/{limit} && exec \"$0\" run --config \"$1\"");
        let mut child = Command::new("unshare")
            .args(["-Ur", "sh", "-c", &limited, env!("CARGO_BIN_EXE_wayside")])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("needs unshare: install it (Debian: apt install util-linux)");
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if ready.is_empty() {
            // A container may not make users.
            assert!(!child.wait().unwrap().success());
            return;
        }
        let address = ready.split_whitespace().nth(1).unwrap().trim_start_matches("http://").to_owned();
        let answers = |path: &str| get(&address, path, &[]).starts_with("HTTP/1.1 200");
        assert!(answers("/one"));
        for path in ["/two", "/three"] {
            std::fs::write(&file, config.replace("\"/\"", &format!("\"{path}\""))).unwrap();
            until(path, || answers(path) && !answers("/one"));
        }
        terminate(&mut child);
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        assert_eq!(log.matches("files cannot be watched").count(), 1, "{log}");
    }
}
