//! Where spans go and how: the configuration's `otlp`, else OpenTelemetry's environment variables.

use super::variables::Variables;
use crate::base::duration;
use crate::http::settings::check_otlp;
use crate::http::tls;
use anyhow::Context as _;
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig, Identity};
use opentelemetry_otlp::{Compression, Protocol, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SpanExporter as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How spans are exported.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Settings {
    /// The collector's URL; with the path where it is spoken to over HTTP.
    pub(super) endpoint: String,
    http: bool,
    compression: Option<Compression>,
    /// How long a span waits for others.
    pub(super) delay: Duration,
    /// For one export.
    pub(super) timeout: Duration,
    /// Exchanges whose spans wait at most.
    pub(super) queue: usize,
    service_name: Option<String>,
    /// Whom alone to trust; none: whom the system trusts.
    certificate: Option<Pem>,
    client_certificate: Option<Pem>,
    client_key: Option<Pem>,
}

/// A file of PEM, and the variable that names it.
#[derive(Debug, Clone)]
struct Pem {
    variable: &'static str,
    file: PathBuf,
}

impl Pem {
    /// The file's bytes, once `check` has found in them what it looks for.
    fn read<T>(&self, check: impl FnOnce(&Path, &[u8]) -> Result<T, String>) -> anyhow::Result<Vec<u8>> {
        let read = || {
            let bytes = tls::read(&self.file)?;
            check(&self.file, &bytes).map(|_| bytes)
        };
        read().map_err(|problem| anyhow::anyhow!("{}: {problem}", self.variable))
    }
}

impl Settings {
    /// None: nothing says where spans go, or that they shall go nowhere. `env` reads an environment variable.
    ///
    /// # Errors
    /// What is wrong with one of the variables, and what to write.
    pub(in crate::telemetry) fn of(
        otlp: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let env = Variables(env);
        let off = env.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || env.get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if off {
            return Ok(None);
        }
        // Only the variable for traces alone holds the whole URL.
        let whole = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let (key, base) = match otlp {
            Some(otlp) => ("telemetry.otlp", otlp.to_owned()),
            None => match env.first([whole, "OTEL_EXPORTER_OTLP_ENDPOINT"]) {
                Some(given) => given,
                None => return Ok(None),
            },
        };
        check_otlp(&base).map_err(|problem| format!("{key}: {problem}"))?;
        let protocol = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        let protocols = [("grpc", false), ("http/protobuf", true)];
        let http = env.one_of(protocol, &protocols)?.unwrap_or(false);
        let compression = ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"];
        let compressions = [("gzip", Some(Compression::Gzip)), ("none", None)];
        let endpoint = match base.trim_end_matches('/') {
            base if http && key != whole && !base.ends_with("/v1/traces") => format!("{base}/v1/traces"),
            _ => base,
        };
        env.check_headers(["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"])?;
        env.tell_of_others();
        let timeout = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
        // OpenTelemetry's default is 5 s; who looks at a trace of just now does not want to wait for it.
        let delay = env.number(["OTEL_BSP_SCHEDULE_DELAY"])?.unwrap_or(1000).max(1);
        let queue = env.number(["OTEL_BSP_MAX_QUEUE_SIZE"])?.unwrap_or(2048);
        let pem = |names| env.first(names).map(|(variable, file)| Pem { variable, file: file.into() });
        Ok(Some(Settings {
            endpoint,
            http,
            compression: env.one_of(compression, &compressions)?.flatten(),
            delay: Duration::from_millis(delay).min(duration::MOST),
            timeout: Duration::from_millis(env.number(timeout)?.unwrap_or(10_000)).min(duration::MOST),
            queue: usize::try_from(queue).unwrap_or(usize::MAX).min(1 << 20),
            service_name: env.get("OTEL_SERVICE_NAME"),
            certificate: pem(["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"]),
            client_certificate: pem([
                "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            ]),
            client_key: pem(["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"]),
        }))
    }

    /// Can the exporter be made?
    pub(in crate::telemetry) fn check(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.build(&runtime).map(drop)
    }

    /// The exporter, on this runtime.
    pub(super) fn build(&self, runtime: &tokio::runtime::Runtime) -> anyhow::Result<SpanExporter> {
        let _entered = runtime.enter();
        self.exporter().with_context(|| format!("telemetry: cannot export to {}", self.endpoint))
    }

    /// The exporter; headers are as their own variables say. Wants a runtime around it.
    ///
    /// # Errors
    /// The endpoint is no URL, or one of those variables is wrong, or names a file that is.
    fn exporter(&self) -> anyhow::Result<SpanExporter> {
        tls::install_provider();
        let mut exporter = if self.http {
            let builder = SpanExporter::builder().with_http().with_http_client(self.client()?);
            let builder = builder.with_protocol(Protocol::HttpBinary).with_endpoint(&self.endpoint);
            let builder = builder.with_timeout(self.timeout);
            match self.compression {
                Some(compression) => builder.with_compression(compression).build()?,
                None => builder.build()?,
            }
        } else {
            let builder = SpanExporter::builder().with_tonic().with_endpoint(&self.endpoint).with_timeout(self.timeout);
            let builder = match self.compression {
                Some(compression) => builder.with_compression(compression),
                None => builder,
            };
            match self.endpoint.starts_with("https:") {
                true => builder.with_tls_config(self.tls()?).build()?,
                false => builder.build()?,
            }
        };
        exporter.set_resource(&self.resource());
        Ok(exporter)
    }

    /// For OTLP/gRPC.
    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let config = match &self.certificate {
            Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem.read(tls::certificates)?)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        Ok(match self.identity()? {
            Some([certificate, key]) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        })
    }

    /// For OTLP/HTTP.
    fn client(&self) -> anyhow::Result<reqwest::Client> {
        let mut client = reqwest::Client::builder().timeout(self.timeout);
        if let Some(pem) = &self.certificate {
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem.read(tls::certificates)?)?);
        }
        if let Some(both) = self.identity()? {
            client = client.identity(reqwest::Identity::from_pem(&both.join(&b'\n'))?);
        }
        Ok(client.build()?)
    }

    /// What the collector is shown: a certificate and its key.
    fn identity(&self) -> anyhow::Result<Option<[Vec<u8>; 2]>> {
        match (&self.client_certificate, &self.client_key) {
            (Some(certificate), Some(key)) => Ok(Some([certificate.read(tls::certificates)?, key.read(tls::key)?])),
            (None, None) => Ok(None),
            (Some(alone), None) | (None, Some(alone)) => {
                anyhow::bail!(
                    "{}: a certificate and its key are only good together; the other is not set",
                    alone.variable
                )
            }
        }
    }

    /// Who says it: `OTEL_SERVICE_NAME`, else `OTEL_RESOURCE_ATTRIBUTES`, else ourselves.
    fn resource(&self) -> Resource {
        let mut chance = crate::base::chance::Chance::seeded();
        let (high, low) = (chance.next_u64(), chance.next_u64());
        // A random UUID (RFC 9562 §5.4).
        let instance = format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            0x8000 | ((low >> 48) & 0x3fff),
            low & 0xffff_ffff_ffff
        );
        let own = [
            KeyValue::new("service.name", "wayside"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance),
        ];
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(own)
            .with_detector(Box::new(EnvResourceDetector::new()))
            .with_attributes(self.service_name.clone().map(|name| KeyValue::new("service.name", name)))
            .build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(otlp: Option<&str>, variables: &[(&str, &str)]) -> Option<(String, bool)> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::of(otlp, env).unwrap().map(|settings| (settings.endpoint, settings.http))
    }

    #[test]
    fn the_configuration_goes_first_and_the_variables_after_it() {
        let (base, traces) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let some = |endpoint: &str, http: bool| Some((endpoint.to_owned(), http));
        assert_eq!(of(None, &[]), None);
        assert_eq!(of(None, &[(base, "")]), None);
        assert_eq!(of(Some("http://a:1"), &[(base, "http://b:2")]), some("http://a:1", false));
        assert_eq!(of(None, &[(base, "http://b:2"), (traces, "http://c:3")]), some("http://c:3", false));
        assert_eq!(of(Some("http://a:1/"), &[http]), some("http://a:1/v1/traces", true));
        assert_eq!(of(Some("http://a:1/v1/traces"), &[http]), some("http://a:1/v1/traces", true));
        assert_eq!(of(None, &[(base, "http://b:2"), http]), some("http://b:2/v1/traces", true));
        assert_eq!(of(None, &[(traces, "http://c:3/x"), http]), some("http://c:3/x", true));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        assert_eq!(of(Some("http://a:1"), &[http, own]), some("http://a:1", false));
        for off in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
            assert_eq!(of(Some("http://a:1"), &[off]), None);
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_in_words() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1");
        let base = "OTEL_EXPORTER_OTLP_";
        let cases = [
            ("ENDPOINT", "a:4317", "`a:4317` has no scheme; write `http://a:4317`"),
            ("ENDPOINT", "//a:4317", "has no scheme; write `http://a:4317`"),
            ("ENDPOINT", "grpc://a:4317", "write `http://a:4317` or `https://a:4317`"),
            ("ENDPOINT", "http://", "is no URL"),
            ("ENDPOINT", "user:secret@a:4317", "has no scheme; write it like `http://127.0.0.1:4317`"),
            ("TRACES_ENDPOINT", "localhost", "`localhost` has no scheme; write `http://localhost`"),
            ("PROTOCOL", "http/json", "`http/json` is not supported; write `grpc` or `http/protobuf`"),
            ("TRACES_PROTOCOL", "thrift", "`thrift` is not supported"),
            ("COMPRESSION", "zstd", "`zstd` is not supported; write `gzip` or `none`"),
            ("TRACES_COMPRESSION", "best", "`best` is not supported"),
            ("TIMEOUT", "10s", "`10s` is no whole number"),
            ("TRACES_TIMEOUT", "-1", "`-1` is no whole number"),
            ("HEADERS", "a=b,authorization secret", "number 2 is no header, like `name=value`"),
        ];
        for (variable, value, expected) in cases {
            let variable = format!("{base}{variable}");
            let env = |name: &str| match name {
                _ if name == variable => Some(value.to_owned()),
                _ => (name == endpoint.0).then(|| endpoint.1.to_owned()),
            };
            let problem = Settings::of(None, env).unwrap_err();
            assert!(problem.starts_with(&format!("{variable}: ")) && problem.contains(expected), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
        for variable in ["OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_MAX_QUEUE_SIZE"] {
            let env = |name: &str| (name == variable).then(|| "many".to_owned());
            assert!(
                Settings::of(Some("http://a:1"), env).unwrap_err().starts_with(&format!("{variable}: `many` is no"))
            );
        }
        // No clock is asked for more than it can.
        let env = |name: &str| name.contains("TIMEOUT").then(|| u64::MAX.to_string());
        assert_eq!(Settings::of(Some("http://a:1"), env).unwrap().unwrap().timeout, duration::MOST);
    }

    #[test]
    fn compression_is_as_asked() {
        let compression = |value: &str| {
            let env = |name: &str| (name == "OTEL_EXPORTER_OTLP_COMPRESSION").then(|| value.to_owned());
            Settings::of(Some("http://a:1"), env).unwrap().unwrap().compression
        };
        assert_eq!(
            ["gzip", "GZIP", "none", ""].map(compression),
            [Some(Compression::Gzip), Some(Compression::Gzip), None, None]
        );
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_its_variable() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        let empty = empty.display().to_string();
        let problem = |protocol: &str, variables: &[(&str, &str)]| {
            let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
            let env =
                |name: &str| if name == "OTEL_EXPORTER_OTLP_PROTOCOL" { Some(protocol.into()) } else { find(name) };
            let settings = Settings::of(Some("https://127.0.0.1:4317"), env).unwrap().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _entered = runtime.enter();
            format!("{:#}", settings.exporter().unwrap_err())
        };
        let (ca, own) = ("OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY");
        for protocol in ["grpc", "http/protobuf"] {
            let missing = problem(protocol, &[(ca, "/nowhere/ca.pem")]);
            assert!(missing.starts_with(&format!("{ca}: /nowhere/ca.pem: cannot be read: No such file")), "{missing}");
            let alone = problem(protocol, &[(own, &empty)]);
            assert!(alone.starts_with(&format!("{own}: a certificate and its key")), "{alone}");
            let nothing = problem(protocol, &[(ca, &empty)]);
            assert!(nothing.starts_with(&format!("{ca}: {empty}: no certificates in PEM")), "{nothing}");
        }
    }
}
