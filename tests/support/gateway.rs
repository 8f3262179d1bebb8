//! A gateway for a test: its listeners, services, routes and policies, each said as far as it matters.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, each of which uses some of it")]

use super::program::Program;
use std::fmt::Display;
use std::path::Path;
use tempfile::TempDir;

/// What is said of it so far.
pub struct Gateway {
    folder: TempDir,
    listeners: Vec<String>,
    keys: String,
    tables: String,
    /// The last one is what is spoken of.
    services: Vec<Service>,
    routes: String,
    has_policies: bool,
    environment: Vec<(String, String)>,
}

struct Service {
    name: String,
    keys: String,
    endpoints: String,
}

impl Service {
    fn named(name: &str) -> Self {
        Service { name: name.to_owned(), keys: String::new(), endpoints: String::new() }
    }
}

impl Gateway {
    /// One listener without TLS; a service, `shop`, without endpoints, where everything goes unless there are routes or
    /// policies.
    pub fn with() -> Self {
        Gateway {
            folder: tempfile::tempdir().unwrap(),
            listeners: Vec::new(),
            keys: String::new(),
            tables: String::new(),
            services: vec![Service::named("shop")],
            routes: String::new(),
            has_policies: false,
            environment: Vec::new(),
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file in its folder.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.folder().join(name), content).unwrap();
        self
    }

    /// More keys of `[gateway]`.
    pub fn keys(mut self, keys: &str) -> Self {
        self.keys = format!("{}{keys}\n", self.keys);
        self
    }

    /// One more listener, as the configuration names it; the first takes the place of the one without TLS.
    pub fn listener(mut self, listener: &str) -> Self {
        self.listeners.push(listener.to_owned());
        self
    }

    /// One more listener, with TLS, that has these pairs of `NAME.pem` and `NAME.key`, and more keys of its own.
    pub fn tls(self, pairs: &[&str], keys: &str) -> Self {
        let pair = |name: &&str| format!("{{ chain = \"{name}.pem\", key = \"{name}.key\" }}");
        let pairs: Vec<String> = pairs.iter().map(pair).collect();
        let keys = if keys.is_empty() { String::new() } else { format!(", {keys}") };
        self.listener(&format!("{{ address = \"127.0.0.1:0\", certificates = [{}]{keys} }}", pairs.join(", ")))
    }

    /// Keys of `[telemetry]`.
    pub fn telemetry(self, keys: &str) -> Self {
        self.table(&format!("[telemetry]\n{keys}"))
    }

    /// Any other table.
    pub fn table(mut self, table: &str) -> Self {
        self.tables = format!("{}{table}\n", self.tables);
        self
    }

    /// What comes next is about the service of this name: another one, or the first if nothing was said of it.
    pub fn named(mut self, name: &str) -> Self {
        self.services.retain(|service| !service.keys.is_empty() || !service.endpoints.is_empty());
        self.services.push(Service::named(name));
        self
    }

    fn spoken_of(&mut self) -> &mut Service {
        self.services.last_mut().unwrap()
    }

    /// One more endpoint of the service.
    pub fn endpoint(mut self, address: impl Display) -> Self {
        let service = self.spoken_of();
        service.endpoints += &format!("[[services.{}.endpoints]]\naddress = \"{address}\"\n", service.name);
        self
    }

    /// The same with several.
    pub fn endpoints(self, addresses: impl IntoIterator<Item = impl Display>) -> Self {
        addresses.into_iter().fold(self, Gateway::endpoint)
    }

    /// More keys of the service.
    pub fn service(mut self, keys: &str) -> Self {
        self.spoken_of().keys += &format!("{keys}\n");
        self
    }

    /// A route to the service, with these keys.
    pub fn route(mut self, keys: &str) -> Self {
        let route = format!("[[routes]]\n{keys}\nservice = \"{}\"\n", self.spoken_of().name);
        self.routes += &route;
        self
    }

    /// A file in the watched directory, `NAME.wasm` or `NAME.toml`.
    pub fn policy(mut self, file: &str, content: impl AsRef<[u8]>) -> Self {
        self.has_policies = true;
        std::fs::create_dir_all(self.folder().join("policies")).unwrap();
        self.file(&format!("policies/{file}"), content)
    }

    /// Variables of its environment.
    pub fn environment(mut self, variables: &[(&str, &str)]) -> Self {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self
    }

    /// Starts it, and waits until it is ready.
    pub fn start(mut self) -> Program {
        if self.routes.is_empty() && !self.has_policies {
            self = self.route("match = { path_prefix = \"/\" }");
        }
        let Gateway { folder, listeners, keys, tables, services, routes, has_policies, environment } = self;
        let listeners = if listeners.is_empty() { "\"127.0.0.1:0\"".to_owned() } else { listeners.join(", ") };
        let policies = if has_policies { "[policies]\ndirectory = \"policies\"\n" } else { "" };
        let source = "[sources.local]\nkind = \"file\"\npath = \"services.toml\"\n";
        let declared = |Service { name, keys, .. }: &Service| format!("[services.{name}]\nsource = \"local\"\n{keys}");
        let declared: String = services.iter().map(declared).collect();
        let config = format!("listen = [{listeners}]\n{keys}{tables}{policies}{source}{declared}{routes}");
        let endpoints: String = services.iter().map(|service| service.endpoints.as_str()).collect();
        std::fs::write(folder.path().join("services.toml"), endpoints).unwrap();
        let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        Program::start(folder, &config, &environment)
    }
}

impl Program {
    /// With one service, `shop`, of one endpoint, where everything goes; keys of `[gateway]` and of the service.
    pub fn before(endpoint: impl Display, gateway: &str, service: &str) -> Self {
        Gateway::with().endpoint(endpoint).keys(gateway).service(service).start()
    }
}
