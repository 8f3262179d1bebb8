//! Tests that put the gateway under load for long. `make test` runs one after the other, so that each has the machine.

mod chaos;
mod e2e;
mod hostile;
mod leak;
mod once;
mod support;
mod swap;
