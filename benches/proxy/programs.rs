//! How each program is started that is measured.

use crate::process::Process;
use anyhow::Context as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who decides where a request goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Decides {
    /// A declared route.
    Route,
    /// The last of a thousand declared routes.
    Routes,
    /// A declared route, to a service of 10,000 endpoints of which three take traffic.
    Endpoints,
    /// A declared route, behind a limit for each client that stops nothing.
    Limit,
    /// A declared route, behind ids of requests and pages of another origin, and a hundred more for other paths.
    Middleware,
    /// The policy that reads a header and a cookie, hashes, and gives a reason.
    Canary,
    /// The policy of 20 rules, of which the last fits.
    Tenant,
}

/// The real program: metrics on, one trace in a hundred sampled and exported. Where a policy decides there is no route,
/// so a policy that fails is a request that fails. Gives its configuration.
///
/// # Errors
/// A file cannot be written.
pub fn configure(
    folder: &Path,
    workers: usize,
    endpoints: &[SocketAddr],
    sink: SocketAddr,
    [chain, key]: &[String; 2],
    decides: Decides,
) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(folder.join("policies"))?;
    let mut services = String::new();
    for address in endpoints {
        services += &format!("[[services.users-v2.endpoints]]\naddress = \"{address}\"\n");
    }
    if decides == Decides::Endpoints {
        for n in 0..10_000 - endpoints.len() {
            let address = format!("127.1.{}.{}:9", n / 250, 1 + n % 250);
            services += &format!("[[services.users-v2.endpoints]]\naddress = \"{address}\"\nweight = 0\n");
        }
    }
    std::fs::write(folder.join("services.toml"), services)?;
    let policy = |name: &str, config: &str| {
        let built = format!("{}/guest-examples/prebuilt/{name}.wasm", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(&built, folder.join(format!("policies/{name}.wasm"))).with_context(|| built)?;
        std::fs::write(folder.join(format!("policies/{name}.toml")), format!("config = \"\"\"\n{config}\"\"\"\n"))?;
        anyhow::Ok("[policies]\ndirectory = \"policies\"\ncache = \"cache\"\n".to_owned())
    };
    let route =
        |prefix: &str| format!("[[routes]]\nmatch = {{ path_prefix = \"{prefix}\" }}\nservice = \"users-v2\"\n");
    let decided = match decides {
        Decides::Route | Decides::Endpoints => route("/api/users"),
        Decides::Limit => format!("[[rate_limits]]\nrate = \"1000000/s\"\n{}", route("/api/users")),
        Decides::Middleware => {
            let other = |n| format!("[[middleware]]\nmatch = {{ path = \"/{n}\" }}\nredirect_https = {{}}\n");
            let others: String = (0..100).map(other).collect();
            let cors = "cors = { origins = [\"https://shop.example\"] }";
            format!("[[middleware]]\nrequest_id = {{}}\n[[middleware]]\n{cors}\n{others}{}", route("/api/users"))
        }
        Decides::Routes => {
            let others = (1..1000).map(|n| route(&format!("/api/service-{n}")));
            others.chain([route("/api/users")]).collect()
        }
        // Everybody is in the share.
        Decides::Canary => policy("canary", "100\n")?,
        Decides::Tenant => {
            let rules = (0..20).map(|n| format!("/api/users acme-{n} gold users-v2\n"));
            policy("tenant", &rules.collect::<String>())?
        }
    };
    let config = format!(
        "[gateway]\nlisten = [\"127.0.0.1:0\", {{ address = \"127.0.0.1:0\", \
         certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}] }}]\nadmin = \"127.0.0.1:0\"\nworkers = {workers}\n\
         max_connections_per_client = 10000\n\
         [telemetry]\notlp = \"http://{sink}\"\nsample = 0.01\n\
         [sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
         [services.users-v2]\nsource = \"local\"\nstrategy = \"round-robin\"\n{decided}"
    );
    let file = folder.join("wayside.toml");
    std::fs::write(&file, config)?;
    Ok(file)
}

/// The gateway with this configuration.
///
/// # Errors
/// It did not start.
pub fn gateway(config: &Path) -> anyhow::Result<Process> {
    let arguments = ["run".to_owned(), "--config".to_owned(), config.display().to_string()];
    Process::start(Path::new(env!("CARGO_BIN_EXE_wayside")), &arguments)
}

/// nginx, set up for the same. None: it is not installed.
///
/// # Errors
/// It did not start.
pub fn nginx(folder: &Path, endpoints: &[SocketAddr]) -> anyhow::Result<Option<Process>> {
    if Command::new("nginx").arg("-v").output().is_err() {
        return Ok(None);
    }
    std::fs::create_dir_all(folder)?;
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let servers: String = endpoints.iter().map(|endpoint| format!("server {endpoint};")).collect();
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.iter().map(|kind| format!("{kind}_temp_path {folder}/{kind};")).collect();
    let config = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n\
         events {{ worker_connections 16384; }}\n\
         http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; {temporary}\n\
         upstream users {{ {servers} keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen {address} backlog=4096;\n\
         location / {{ proxy_pass http://users; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr; }} }} }}\n"
    );
    let file = format!("{folder}/nginx.conf");
    std::fs::write(&file, config)?;
    let arguments = ["-p".to_owned(), folder.to_string(), "-c".to_owned(), file];
    Process::start_silent(Path::new("nginx"), &arguments, address).map(Some)
}
