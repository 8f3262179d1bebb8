//! Every test of the program as a whole but those that put it under load, in one binary: linking is what takes long.

mod bounds;
mod browser;
mod compile;
mod consul;
mod demo;
mod gateway;
mod grpc;
mod guests;
mod h2spec;
mod http1;
mod http2;
mod interop;
mod jaeger;
mod layers;
mod policy_commands;
mod policy_directory;
mod policy_trouble;
mod reload;
mod resets;
mod semantics;
mod support;
mod telemetry;
mod tls;
mod traffic;
mod upgrade;
mod upstream_tls;
