//! The real program with a configuration of its own, on free ports, gone when the value is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "for tests, each of which uses some of it"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that a test waits for.
const WAIT: Duration = Duration::from_secs(20);
/// The configuration, in the gateway's folder.
const FILE: &str = "wayside.toml";
/// Between two looks at something that has no signal.
const LOOK: Duration = Duration::from_millis(20);

/// A running gateway.
#[derive(Debug)]
pub struct Program {
    child: Child,
    /// Where clients connect, at the first listener.
    pub address: String,
    /// Where they connect at each of the listeners.
    pub addresses: Vec<String>,
    /// Where operators connect.
    pub admin: String,
    output: Receiver<String>,
    log: Receiver<String>,
    folder: TempDir,
}

impl Program {
    /// Starts it with this configuration, besides its addresses, in a folder with the files that it names. More keys of
    /// `[gateway]` may come first; `listen` and `workers` are not added where they are among them.
    pub fn start(folder: TempDir, config: &str, environment: &[(&str, &str)]) -> Self {
        let file = folder.path().join(FILE);
        let says = |key: &str| config.lines().any(|line| line.starts_with(key));
        let listen = if says("listen = ") { "" } else { "listen = [\"127.0.0.1:0\"]\n" };
        let workers = if says("workers = ") { "" } else { "workers = 2\n" };
        let gateway = format!("[gateway]\nadmin = \"127.0.0.1:0\"\n{workers}{listen}");
        std::fs::write(&file, format!("{gateway}{config}")).unwrap();
        launch_file(Path::new(env!("CARGO_BIN_EXE_wayside")), folder, environment).ready()
    }

    /// Starts this program in a folder that has a configuration.
    pub fn launch(program: &Path, folder: TempDir, environment: &[(&str, &str)]) -> Self {
        launch_file(program, folder, environment).ready()
    }

    /// Starts it with these arguments, by a configuration that is elsewhere.
    pub fn run(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        launch_with(Path::new(env!("CARGO_BIN_EXE_wayside")), folder, arguments, &[]).ready()
    }

    /// The whole answer to a GET with these headers.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> String {
        get(&self.address, path, headers)
    }

    /// The body that the admin answers to a GET.
    pub fn ask(&self, path: &str) -> String {
        let answer = get_as(&self.admin, "localhost", path, &[]);
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    /// The value of a sample of `/metrics`, which is named with its labels as they stand there.
    pub fn metric(&self, sample: &str) -> Option<f64> {
        let page = self.ask("/metrics");
        let line = page.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// Ends it by SIGTERM, upon which it must exit with 0; what it wrote to standard output after the ready line, and its log.
    pub fn stop(mut self) -> (Vec<String>, Vec<String>) {
        terminate(&mut self.child);
        (self.output.iter().collect(), self.log.iter().collect())
    }

    /// Ends it by SIGTERM and starts it again, in the same folder.
    pub fn restart(mut self) -> Self {
        terminate(&mut self.child);
        // Its drop finds the process ended, and an empty folder.
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        drop(self);
        Program::launch(Path::new(env!("CARGO_BIN_EXE_wayside")), folder, &[])
    }

    /// Kills it, and starts it again in the same folder.
    pub fn crash(mut self) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        drop(self);
        Program::launch(Path::new(env!("CARGO_BIN_EXE_wayside")), folder, &[])
    }

    /// Lines of its log so far that contain this; none of them is seen again.
    pub fn lines_so_far(&self, text: &str) -> usize {
        self.log.try_iter().filter(|line| line.contains(text)).count()
    }

    /// Sends it a signal, by its name.
    pub fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end: its exit code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    /// The next line of its log that contains this; those before it are not seen again.
    pub fn logged(&self, text: &str) -> String {
        loop {
            let line = self.log.recv_timeout(WAIT).expect(text);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its folder.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            tell(&self.log);
        }
    }
}

/// What a gateway has said, where a test fails.
fn tell(log: &Receiver<String>) {
    for line in log.iter() {
        eprintln!("    {line}");
    }
}

/// A gateway that was started and may not be ready yet.
#[derive(Debug)]
pub struct Launched {
    /// None: taken over by the program that is ready.
    parts: Option<(Child, Receiver<String>, Receiver<String>, TempDir)>,
}

/// Starts it with exactly this configuration.
pub fn launch(folder: TempDir, config: &str, environment: &[(&str, &str)]) -> Launched {
    std::fs::write(folder.path().join(FILE), config).unwrap();
    launch_file(Path::new(env!("CARGO_BIN_EXE_wayside")), folder, environment)
}

fn launch_file(program: &Path, folder: TempDir, environment: &[(&str, &str)]) -> Launched {
    let file = folder.path().join(FILE).display().to_string();
    launch_with(program, folder, &["--config", &file], environment)
}

fn launch_with(program: &Path, folder: TempDir, arguments: &[&str], environment: &[(&str, &str)]) -> Launched {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command.arg("run").args(arguments).env("NO_PROXY", "127.0.0.1").env("NO_COLOR", "1");
    command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let log = lines(child.stderr.take().unwrap());
    let output = lines(child.stdout.take().unwrap());
    Launched { parts: Some((child, output, log, folder)) }
}

impl Launched {
    /// Waits until it is ready.
    pub fn ready(mut self) -> Program {
        let (mut child, output, log, folder) = self.parts.take().unwrap();
        let Ok(ready) = output.recv_timeout(WAIT) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("not ready: {:?}", log.iter().collect::<Vec<_>>());
        };
        let urls =
            ready.split_whitespace().filter_map(|word| word.split_once("://")).map(|(_, address)| address.to_owned());
        let mut addresses: Vec<String> = urls.collect();
        let admin = addresses.pop().expect("the admin's address");
        let address = addresses.first().expect("an address").clone();
        Program { child, address, addresses, admin, output, log, folder }
    }

    /// Sends it a signal, by its name.
    pub fn signal(&self, name: &str) {
        signal(&self.parts.as_ref().unwrap().0, name);
    }

    /// Waits for its end. True: with exit code 0.
    pub fn ended(&mut self) -> bool {
        self.parts.as_mut().unwrap().0.wait().unwrap().success()
    }

    /// Waits for its end, which must be a failure: its log.
    pub fn failed(mut self) -> Vec<String> {
        assert!(!self.ended());
        self.parts.as_ref().unwrap().2.iter().collect()
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if let Some((child, _, log, _)) = &mut self.parts {
            let _ = child.kill();
            let _ = child.wait();
            if std::thread::panicking() {
                tell(log);
            }
        }
    }
}

/// Looks until it is so.
pub fn until(what: &str, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < WAIT, "{what}: not within {WAIT:?}");
        std::thread::sleep(LOOK);
    }
}

/// Ends a process by SIGTERM, upon which it must exit with 0.
pub fn terminate(child: &mut Child) {
    signal(child, "TERM");
    assert!(child.wait().unwrap().success());
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
}

/// The whole answer to a GET with these headers.
pub fn get(address: &str, path: &str, headers: &[(&str, &str)]) -> String {
    get_as(address, "shop.example", path, headers)
}

/// The same with another host.
pub fn get_as(address: &str, host: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// An address where connections are refused. It is held, so that no other server can get it meanwhile.
pub struct Nobody {
    pub address: SocketAddr,
    _bound: socket2::Socket,
}

pub fn nobody() -> Nobody {
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    Nobody { address: bound.local_addr().unwrap().as_socket().unwrap(), _bound: bound }
}

/// Reads lines on a thread that ends with the stream.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (to, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// An origin that answers each request with the head that it was sent; its threads end with the test.
pub fn echo() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                let mut head = String::new();
                while stream.read_line(&mut head).unwrap() > 2 {}
                let length = head.len();
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{head}");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            });
        }
    });
    address
}
