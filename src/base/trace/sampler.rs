//! Which traces are sampled: as the configuration's `sample` says, else OpenTelemetry's environment variables.

/// Decides whether an exchange's spans are recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Share of traces, 0 to 1.
    ratio: f64,
    /// What the caller has decided about its trace is followed.
    follows_caller: bool,
}

impl Sampler {
    /// Where nothing says otherwise.
    pub const DEFAULT: Sampler = Sampler::of_new_traces(0.01);

    /// This share of the traces that begin here; a caller's decision is followed.
    pub const fn of_new_traces(ratio: f64) -> Self {
        Sampler { ratio, follows_caller: true }
    }

    /// As `OTEL_TRACES_SAMPLER` and `OTEL_TRACES_SAMPLER_ARG` say, which `env` reads
    /// (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration>).
    /// None: they say nothing that is understood.
    pub(crate) fn of(env: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let name = env("OTEL_TRACES_SAMPLER").filter(|name| !name.is_empty())?;
        let (follows_caller, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name.as_str()),
        };
        let ratio = match root {
            "always_on" => 1.0,
            "always_off" => 0.0,
            "traceidratio" => argument(env("OTEL_TRACES_SAMPLER_ARG")),
            _ => {
                tracing::warn!(sampler = name, "OTEL_TRACES_SAMPLER: not supported, so it is not looked at");
                return None;
            }
        };
        Some(Sampler { ratio, follows_caller })
    }

    /// Is this trace sampled? `caller`: what whoever began it has decided.
    pub fn samples(self, trace_id: u128, caller: Option<bool>) -> bool {
        if let Some(sampled) = caller.filter(|_| self.follows_caller) {
            return sampled;
        }
        // As OpenTelemetry's SDKs do it, so that all who see the trace decide alike: of the id's last 64 bits all but the
        // lowest one, against the share of what they can be.
        let bound = (self.ratio * (1_u64 << 63) as f64) as u64;
        (trace_id as u64) >> 1 < bound
    }
}

/// The share that a variable gives; 1 where it gives none, as the specification says.
fn argument(given: Option<String>) -> f64 {
    let Some(given) = given.filter(|given| !given.is_empty()) else { return 1.0 };
    match given.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            tracing::warn!(given, "OTEL_TRACES_SAMPLER_ARG: not a number from 0 to 1, so it is taken for 1");
            1.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::chance::Chance;

    fn of(sampler: &str, argument: &str) -> Option<Sampler> {
        Sampler::of(|name| match name {
            "OTEL_TRACES_SAMPLER" => Some(sampler.to_owned()),
            "OTEL_TRACES_SAMPLER_ARG" => Some(argument.to_owned()),
            _ => None,
        })
    }

    #[test]
    fn the_variables_are_read_as_the_specification_says() {
        let some = |ratio, follows_caller| Some(Sampler { ratio, follows_caller });
        let cases = [
            ("always_on", "0.5", some(1.0, false)),
            ("always_off", "", some(0.0, false)),
            ("traceidratio", "0.25", some(0.25, false)),
            ("traceidratio", "", some(1.0, false)),
            ("traceidratio", "2", some(1.0, false)),
            ("traceidratio", "NaN", some(1.0, false)),
            ("parentbased_always_on", "0.5", some(1.0, true)),
            ("parentbased_always_off", "0.5", some(0.0, true)),
            ("parentbased_traceidratio", "0.25", some(0.25, true)),
            ("parentbased_jaeger_remote", "0.25", None),
            ("xray", "", None),
            ("", "0.5", None),
        ];
        for (sampler, argument, expected) in cases {
            assert_eq!(of(sampler, argument), expected, "{sampler} {argument}");
        }
    }

    #[test]
    fn a_caller_is_followed_only_where_that_was_asked_for() {
        for caller in [true, false] {
            for ratio in [0.0, 1.0] {
                assert_eq!(Sampler::of_new_traces(ratio).samples(7, Some(caller)), caller);
                assert_eq!(Sampler { ratio, follows_caller: false }.samples(7, Some(caller)), ratio == 1.0);
            }
        }
        assert!(Sampler::of_new_traces(1.0).samples(u128::MAX, None));
        assert!(!Sampler::of_new_traces(0.0).samples(0, None));
    }

    #[test]
    fn the_share_is_as_asked() {
        let mut chance = Chance(3);
        let sampler = Sampler::of_new_traces(0.1);
        let sampled = (0..10_000).filter(|_| sampler.samples(u128::from(chance.next_u64()), None)).count();
        // Three standard deviations of a binomial with p = 0.1 are 90.
        assert!(sampled.abs_diff(1000) < 90, "{sampled}");
    }
}
