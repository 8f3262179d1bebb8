//! A configuration's text: it is refused in words, or all that it names is there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use wayside::control::config::Config;
use wayside::discovery::SourceSettings;

fuzz_target!(|text: &str| {
    // Files that it names are read, so they must be in a folder that is not there.
    if toml::from_str(text).is_ok_and(|table: toml::Table| names_a_file(&table)) {
        return;
    }
    let config = match Config::parse(Path::new("no-such-folder/wayside.toml"), text) {
        Ok(config) => config,
        Err(error) => return assert!(!error.problem.is_empty()),
    };
    let some_file = config.sources.values().any(SourceSettings::names_services);
    assert!(config.routes.iter().all(|route| some_file || config.services.contains_key(&route.service)));
    assert!(config.services.values().all(|service| service.settings.source.iter().all(|source| config.sources.contains_key(source))));
    assert!(config.services.values().all(|service| service.settings.max_attempts <= config.gateway.max_attempts));
    assert!(!config.gateway.listen.is_empty() && config.gateway.workers > 0);
    assert_eq!(config.clone().keep_until_restart(&config), [""; 0]);
});

/// An absolute path where a file is read.
fn names_a_file(table: &toml::Table) -> bool {
    table.iter().any(|(key, value)| is_absolute(key, value))
}

fn is_absolute(key: &str, value: &toml::Value) -> bool {
    match value {
        toml::Value::String(text) => ["ca", "chain", "key"].contains(&key) && Path::new(text).is_absolute(),
        toml::Value::Array(values) => values.iter().any(|value| is_absolute(key, value)),
        toml::Value::Table(table) => names_a_file(table),
        _ => false,
    }
}
