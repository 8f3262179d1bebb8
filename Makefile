# make check   format, lint, unit tests: a minute
# make test    everything, with real servers, which are installed under target/ the first time (minutes)
# make guests  the example policies from source, into target/guests/
.PHONY: check test guests servers bench
check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test --lib
guests:
	scripts/guests
servers:
	@scripts/servers/consul >/dev/null
	@scripts/servers/jaeger >/dev/null
test: check servers guests
	cargo test
	cargo test --test policy_commands -- --ignored
bench:
	cargo bench --bench pick --bench policy --bench proxy --bench route
