//! `wayside demo`: two services, a gateway and a canary policy in one process, and what to try with them.

use crate::base::lines;
use crate::control::config::Config;
use crate::gateway;
use anyhow::Context;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

const POLICY: &[u8] = include_bytes!("../../guest-examples/prebuilt/canary.wasm");
const SIDECAR: &str = "match = { path_prefix = \"/users\" }   # only these requests are asked about\n\
                       config = \"20\"                          # percent of users who go to users-v2\n";
/// The services, their endpoints' names and the version that their metadata tells.
const SERVICES: [(&str, [&str; 3], &str); 2] =
    [("users", ["ada", "bob", "cay"], "v1"), ("users-v2", ["dan", "eve", "fay"], "v2")];

/// How the demo is run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where clients connect; another free port is taken if this one is in use
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where operators connect; another free port is taken if this one is in use
    #[arg(long, default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Send every trace to this OTLP/gRPC address, like http://127.0.0.1:4317 for a Jaeger on this machine
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
}

/// Runs until SIGINT or SIGTERM.
///
/// # Errors
/// A temporary folder or a socket cannot be had.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("wayside-demo-").tempdir().context("no temporary folder")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let config = write(folder.path(), args, &origins(&runtime)?)?;
    gateway::run(Config::read(&config)?, None, |listeners, admin| {
        if let Some(listener) = listeners.first() {
            lines::output().push(|| introduction(listener.0, admin, folder.path()) + "\n");
        }
        lines::output().push(|| gateway::ready_line(listeners, admin) + "\n");
    })
}

/// Starts the endpoints; gives what a file source says about them.
fn origins(runtime: &tokio::runtime::Runtime) -> anyhow::Result<String> {
    let mut listed = String::new();
    for (service, endpoints, version) in SERVICES {
        for name in endpoints {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr()?;
            listener.set_nonblocking(true)?;
            runtime.spawn(origin(listener, format!("{name} of {service}")));
            writeln!(listed, "[[services.{service}.endpoints]]\naddress = \"{address}\"")?;
            writeln!(listed, "metadata = {{ name = \"{name}\", version = \"{version}\" }}")?;
        }
    }
    Ok(listed)
}

/// One endpoint: it says who it is.
async fn origin(listener: TcpListener, name: String) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let text = format!("{name} answers {} {}\n", request.method(), request.uri().path());
                async { Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(text)))) }
            });
            // A connection that breaks is the end of it.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Writes configuration, endpoints and policy into `folder`; gives the configuration's path.
fn write(folder: &Path, args: &Args, endpoints: &str) -> anyhow::Result<std::path::PathBuf> {
    let policies = folder.join("policies");
    std::fs::create_dir(&policies)?;
    std::fs::write(policies.join("canary.toml"), SIDECAR)?;
    std::fs::write(policies.join("canary.wasm"), POLICY)?;
    std::fs::write(folder.join("services.toml"), endpoints)?;
    let otlp = args.otlp.as_ref().map(|url| format!("otlp = {url:?}\nsample = 1.0\n")).unwrap_or_default();
    let config = folder.join("wayside.toml");
    let (listen, admin) = (free(args.listen), free(args.admin));
    let text = format!(
        "[gateway]\nlisten = [\"{listen}\"]\nadmin = \"{admin}\"\n[policies]\ndirectory = \"policies\"\n\
         [telemetry]\naccess_log = \"text\"\n{otlp}[sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
         [[routes]]\nmatch = {{ path_prefix = \"/users\" }}\nservice = \"users\"\n"
    );
    std::fs::write(&config, text)?;
    Ok(config)
}

/// The address, or any free port where that one is taken.
fn free(address: SocketAddr) -> SocketAddr {
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => SocketAddr::new(address.ip(), 0),
    }
}

fn introduction(listener: SocketAddr, admin: SocketAddr, folder: &Path) -> String {
    let policies = folder.join("policies");
    let policies = policies.display();
    format!(
        "\nWayside routes /users to two services with three endpoints each. A policy, canary.wasm, decides which.\n\
         Try, in another terminal:\n\n\
         \x20 curl http://{listener}/users                      # the declared route: users, one endpoint after the other\n\
         \x20 curl -H 'x-canary: 1' http://{listener}/users     # the policy sends this one to users-v2\n\
         \x20 for n in $(seq 10); do curl -sb sid=$n http://{listener}/users; done   # and 20 % of all users\n\
         \x20 curl http://{listener}/nowhere                    # no route: what the gateway answers itself\n\n\
         Change the policy's share while it runs, then ask again; no request is lost:\n\n\
         \x20 sed -i 's/\"20\"/\"80\"/' {policies}/canary.toml\n\
         \x20 curl http://{admin}/policies                   # its new version\n\n\
         See more: http://{admin}/services /snapshot /metrics. The services: {}/services.toml\n\
         Your own policy: `wayside policy new mine`, `wayside policy build mine --out {policies}/mine.wasm`\n\n\
         Each request is told below: what was decided, why, and who answered. Ctrl-C ends it.\n",
        folder.display()
    )
}
