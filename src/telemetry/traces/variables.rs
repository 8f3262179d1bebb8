//! OpenTelemetry's environment variables, read so that none is taken for something else, or passed over in silence
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

use std::collections::BTreeMap;

/// Variables that say something about traces, and that are not looked at.
const OTHERS: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_INSECURE",
    "OTEL_EXPORTER_OTLP_TRACES_INSECURE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
];

/// Reads one by its name.
pub(super) struct Variables<F>(pub(super) F);

impl<F: Fn(&str) -> Option<String>> Variables<F> {
    /// The specification calls an empty one unset.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// The first that is set, and its name.
    pub(super) fn first<const N: usize>(&self, names: [&'static str; N]) -> Option<(&'static str, String)> {
        names.into_iter().find_map(|name| Some((name, self.get(name)?)))
    }

    /// What the first that is set stands for.
    pub(super) fn one_of<T: Copy>(&self, names: [&'static str; 2], known: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        match known.iter().find(|(known, _)| value.eq_ignore_ascii_case(known)) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let known: Vec<String> = known.iter().map(|(known, _)| format!("`{known}`")).collect();
                Err(format!("{name}: `{value}` is not supported; write {}", known.join(" or ")))
            }
        }
    }

    /// The number that the first that is set holds.
    pub(super) fn number<const N: usize>(&self, names: [&'static str; N]) -> Result<Option<u64>, String> {
        let Some((name, value)) = self.first(names) else { return Ok(None) };
        value.trim().parse().map(Some).map_err(|_| format!("{name}: `{value}` is no whole number from 0 on"))
    }

    /// A list of headers that holds something else would be sent without it.
    pub(super) fn check_headers(&self, names: [&'static str; 2]) -> Result<(), String> {
        for name in names {
            let given = self.get(name).unwrap_or_default();
            for (number, header) in given.split(',').enumerate().filter(|(_, header)| !header.trim().is_empty()) {
                let key = header.split_once('=').map(|(key, _)| key.trim().parse::<http::HeaderName>());
                if !matches!(key, Some(Ok(_))) {
                    // Not shown: it may well be a secret.
                    return Err(format!("{name}: number {} is no header, like `name=value`", number + 1));
                }
            }
        }
        Ok(())
    }

    /// Tells of what is set in vain.
    pub(super) fn tell_of_others(&self) {
        for (variable, why) in self.others() {
            tracing::warn!(variable, "{why}");
        }
    }

    fn others(&self) -> BTreeMap<&'static str, &'static str> {
        let mut others: BTreeMap<_, _> =
            OTHERS.into_iter().filter(|name| self.get(name).is_some()).map(|name| (name, "is not looked at")).collect();
        let lists = |name: &str, wanted: &str| {
            self.get(name).is_none_or(|given| given.split(',').any(|one| one.trim() == wanted))
        };
        if !lists("OTEL_TRACES_EXPORTER", "otlp") {
            others.insert("OTEL_TRACES_EXPORTER", "names no exporter that is supported; spans go over OTLP");
        }
        if !lists("OTEL_PROPAGATORS", "tracecontext") {
            others.insert(
                "OTEL_PROPAGATORS",
                "names no propagator that is supported; traces go on as `traceparent` says",
            );
        }
        let attributes = self.get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        if attributes.split(',').any(|pair| !pair.trim().is_empty() && !pair.contains('=')) {
            others.insert("OTEL_RESOURCE_ATTRIBUTES", "holds something that is not `key=value`, which is left out");
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Variables(env).others().into_keys().collect()
    }

    #[test]
    fn what_is_set_in_vain_is_told() {
        assert!(others(&[]).is_empty());
        let good = [
            ("OTEL_TRACES_EXPORTER", "console,otlp"),
            ("OTEL_PROPAGATORS", "baggage, tracecontext"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d,"),
            ("OTEL_BSP_EXPORT_TIMEOUT", ""),
        ];
        assert!(others(&good).is_empty());
        let vain = [
            ("OTEL_BSP_EXPORT_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_INSECURE", "true"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ];
        assert_eq!(others(&vain), vain.map(|(name, _)| name));
    }
}
