# make demo    see it at work; needs nothing but cargo
# make check   format, lint, unit tests: a minute
# make test    everything, with real servers, which are installed under target/ the first time (minutes)
# make registries  each source against its real registry, through a network that fails; tells how long changes take (part of make test)
# make e2e     the whole thread with a real Consul and a real Jaeger (part of make test)
# make bench   what a head's checks, a limit, a pick, a route, a policy call and a whole request cost; the last beside a bare hyper proxy
# make simulate  the strategies before modelled endpoints, side by side; draws tests/simulate/strategies.svg
# make soak    nothing is left of 10,000 connections of each kind, round after round (part of make test with 1,000)
# make chaos   two minutes of endpoints that die, hang, fail and flap under load (part of make test with 12 s)
# make fuzz    each fuzz target for a minute; `make fuzz SECONDS=600` for longer
# make guests  the example policies from source, into target/guests/
.PHONY: demo check test registries e2e guests servers bench simulate soak chaos fuzz
demo:
	cargo run -- demo
check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test --lib
guests:
	scripts/guests
servers:
	@scripts/servers/consul >/dev/null
	@scripts/servers/etcd >/dev/null
	@scripts/servers/zookeeper >/dev/null
	@scripts/servers/nacos >/dev/null
	@scripts/servers/jaeger >/dev/null
	@scripts/servers/redis >/dev/null
	@scripts/servers/knotd >/dev/null
	@scripts/servers/chromium >/dev/null
	@scripts/servers/h2spec >/dev/null
	@scripts/servers/tls-peer >/dev/null
	@scripts/servers/grpc-interop-client >/dev/null
	@scripts/servers/grpc-interop-server >/dev/null
	@scripts/servers/grpc-health-server >/dev/null
test: check servers guests
	cargo test --bins --test all --test registries
	cargo test --doc
	cargo test --test load -- --test-threads=1
registries: servers
	cargo test --test registries -- --nocapture
e2e: servers
	cargo test --test load -- --nocapture --test-threads=1 e2e:: swap::
bench:
	cargo bench --bench head --bench limits --bench pick --bench policy --bench route --bench telemetry --bench proxy
simulate:
	WAYSIDE_PICTURE=tests/simulate/strategies.svg cargo test --test all -- --nocapture simulate::picture
soak:
	WAYSIDE_SOAK=10000 cargo test --test load -- --nocapture leak::
chaos:
	WAYSIDE_CHAOS=120 cargo test --test load -- --nocapture chaos::
SECONDS = 60
fuzz:
	scripts/fuzz $(SECONDS)
