//! What the GatewayParameters of Gateways and their classes say about access logs and traces.
//!
//! A setting with a mistake counts as absent, and the object that refers to it reports the mistake: a Gateway must not
//! stop because of what it logs. The whole list of rules counts as absent if one of them is invalid, because the first
//! rule that applies decides, so without one the others mean something else.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::access_log_syntax::{LineRule, LineRules, LineTemplate, SamplingRate, SamplingRule, SamplingRules};
use crate::api::gateway::{Gateway, GatewayClass};
use crate::api::portico::{GatewayAccessLogSettings, GatewayParameters, GatewayTracingSettings};
use crate::api::{Kind, Object};
use crate::compile::gateways::gateway_parameters;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::trace::{Propagation, TraceFormat};
use crate::snapshot::access_logs::GatewayAccessLog;
use crate::snapshot::gateway_traces::{GatewayTraces, GatewayTracing};
use crate::store::Store;
use crate::verdict::{Code, Condition};

/// What the Gateways set about their access log.
pub(in crate::compile) fn access_logs(store: &Store) -> BTreeMap<Arc<str>, GatewayAccessLog> {
    let read = |parameters: &GatewayParameters| read_access_log(&parameters.spec.access_log).valid;
    of_gateways(store, read, GatewayAccessLog::or).collect()
}

/// What the Gateways set about their traces.
pub(in crate::compile) fn traces(store: &Store) -> GatewayTraces {
    let read = |parameters: &GatewayParameters| read_tracing(&parameters.spec.tracing).valid;
    GatewayTraces(of_gateways(store, read, GatewayTracing::or).collect())
}

/// The condition of a Gateway whose own parameters have mistakes in these settings.
pub(in crate::compile) fn condition_of_gateway(store: &Store, gateway: &Object<Gateway>) -> Option<Condition> {
    let parameters = gateway_parameters::of_gateway(store, gateway).ok()??;
    condition(Code::GatewayParametersPartlyInvalid, "spec.infrastructure.parametersRef.name", parameters)
}

/// The condition of a class whose parameters have mistakes in these settings.
pub(in crate::compile) fn condition_of_class(store: &Store, class: &Object<GatewayClass>) -> Option<Condition> {
    let parameters = gateway_parameters::of_class(store, class).ok()??;
    condition(Code::ClassParametersPartlyInvalid, "spec.parametersRef.name", parameters)
}

fn condition(code: Code, field: &str, parameters: &Object<GatewayParameters>) -> Option<Condition> {
    let of_log =
        read_access_log(&parameters.spec.access_log).mistakes.into_iter().map(|mistake| ("accessLog", mistake));
    let of_traces = read_tracing(&parameters.spec.tracing).mistakes.into_iter().map(|mistake| ("tracing", mistake));
    let problems = of_log.chain(of_traces).map(|(block, Mistake { setting, position, problem })| {
        let object = format!("{} {}", Kind::GatewayParameters, parameters.meta.key);
        let message = format!("spec.{block}.{setting} of {object} is ignored: {position}{problem}");
        Diagnostic::error(field, message, "correct the field, which counts as absent until then")
    });
    let problems: Vec<_> = problems.collect();
    (!problems.is_empty()).then(|| Condition::new(code, problems))
}

/// The settings of each Gateway that has some: its own, and those of its class for absent ones. A Gateway whose
/// parameters cannot be read has none.
fn of_gateways<T: Default + PartialEq>(
    store: &Store,
    read: impl Fn(&GatewayParameters) -> T,
    or: fn(T, T) -> T,
) -> impl Iterator<Item = (Arc<str>, T)> {
    let gateways = store.gateways.values().filter(move |_| !store.gateway_parameters.is_empty());
    gateways.filter_map(move |gateway| {
        let own = gateway_parameters::of_gateway(store, gateway).ok()?;
        let of_class = gateway_parameters::of_class(store, store.class_of(gateway)?).ok()?;
        let read =
            |parameters: Option<&Object<GatewayParameters>>| parameters.map(|object| read(object)).unwrap_or_default();
        let settings = or(read(own), read(of_class));
        (settings != T::default()).then(|| (Arc::from(gateway.meta.key.to_string()), settings))
    })
}

/// The settings that are valid, and the mistakes in others.
#[derive(Debug)]
struct ObservabilitySettings<T> {
    valid: T,
    mistakes: Vec<Mistake>,
}

#[derive(Debug, PartialEq)]
struct Mistake {
    /// The field of its block.
    setting: &'static str,
    /// The element of a list, with a colon and a space; otherwise empty.
    position: String,
    problem: String,
}

fn read_access_log(settings: &GatewayAccessLogSettings) -> ObservabilitySettings<GatewayAccessLog> {
    let mut mistakes = Vec::new();
    let template = settings.format.as_deref().map(|text| LineTemplate::parse(text).map_err(|error| error.to_string()));
    let template = valid(&mut mistakes, "format", template);
    let rules = valid_elements(&mut mistakes, "filter", settings.filter.as_deref(), str::parse::<LineRule>);
    let valid = GatewayAccessLog { template, rules: rules.map(|rules| LineRules(rules.into())) };
    ObservabilitySettings { valid, mistakes }
}

fn read_tracing(settings: &GatewayTracingSettings) -> ObservabilitySettings<GatewayTracing> {
    let mut mistakes = Vec::new();
    let rate = valid(&mut mistakes, "sampling", settings.sampling.as_deref().map(str::parse::<SamplingRate>));
    let rules = valid_elements(&mut mistakes, "rules", settings.rules.as_deref(), str::parse::<SamplingRule>);
    let format = |name: &str| TraceFormat::from_name(name).ok_or_else(|| format!("there is no format `{name}`"));
    let formats = valid_elements(&mut mistakes, "propagation", settings.propagation.as_deref(), format);
    let rules = rules.map(|rules| SamplingRules(rules.into()));
    let propagation = formats.map(|formats| Propagation::preserving(&formats));
    ObservabilitySettings { valid: GatewayTracing { rate, rules, propagation }, mistakes }
}

/// The value of a setting, if it is set to a valid one.
fn valid<T>(mistakes: &mut Vec<Mistake>, setting: &'static str, value: Option<Result<T, String>>) -> Option<T> {
    let mistake = |problem| mistakes.push(Mistake { setting, position: String::new(), problem });
    value?.map_err(mistake).ok()
}

/// The elements of a list, if it is set and all of them are valid.
fn valid_elements<T>(
    mistakes: &mut Vec<Mistake>,
    setting: &'static str,
    texts: Option<&[String]>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    let texts = texts?;
    let before = mistakes.len();
    let mut elements = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        match parse(text) {
            Ok(element) => elements.push(element),
            Err(problem) => mistakes.push(Mistake { setting, position: format!("{setting}[{index}]: "), problem }),
        }
    }
    (mistakes.len() == before).then_some(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access_log(yaml: &str) -> ObservabilitySettings<GatewayAccessLog> {
        read_access_log(&serde_saphyr::from_str(yaml).unwrap())
    }

    fn tracing(yaml: &str) -> ObservabilitySettings<GatewayTracing> {
        read_tracing(&serde_saphyr::from_str(yaml).unwrap())
    }

    #[test]
    fn traces_of_a_gateway_take_precedence_field_by_field() {
        let class = || tracing("{sampling: 5%, rules: [drop path=/a], propagation: [w3c, b3-single]}").valid;
        let own = tracing("{sampling: 0%, rules: []}").valid.or(class());
        assert_eq!((own.rate.map(SamplingRate::value), own.rules), (Some(0.0), Some(SamplingRules::default())));
        let formats = [TraceFormat::W3c, TraceFormat::B3Single];
        assert_eq!(own.propagation, Some(Propagation::preserving(&formats)));
        assert_eq!(GatewayTracing::default().or(class()), class());
    }

    #[test]
    fn access_log_of_a_gateway_takes_precedence_field_by_field() {
        let class = || access_log("{format: $status, filter: [drop path=/a]}").valid;
        let own = access_log("{filter: []}").valid.or(class());
        assert_eq!((own.template, own.rules), (class().template, Some(LineRules::default())));
        assert_eq!(GatewayAccessLog::default().or(class()), class());
    }

    #[test]
    fn setting_with_a_mistake_counts_as_absent() {
        let read =
            tracing("{sampling: 5%, rules: [keep 1%, drop status=404, drop size=1], propagation: [w3c, zipkin]}");
        let expected = tracing("{sampling: 5%}").valid;
        assert_eq!(read.valid, expected);
        let places: Vec<_> = read.mistakes.iter().map(|mistake| &*mistake.position).collect();
        assert_eq!(places, ["rules[1]: ", "rules[2]: ", "propagation[1]: "]);
        let read = access_log("{format: $remote_adr, filter: [drop path=/healthz]}");
        assert_eq!(read.valid, access_log("{filter: [drop path=/healthz]}").valid);
        assert_eq!(read.mistakes.iter().map(|mistake| mistake.setting).collect::<Vec<_>>(), ["format"]);
        // That of the class takes its place.
        let class = access_log("{format: $status}").valid;
        assert_eq!(read.valid.or(class).template, access_log("{format: $status}").valid.template);
    }

    #[test]
    fn mistakes_in_traces_have_their_reason() {
        for (yaml, setting, problem) in [
            ("{sampling: '0.05'}", "sampling", "`0.05` is no rate"),
            ("{rules: [keep 1%, drop status=404]}", "rules", "`status` is known when a request ends"),
            ("{propagation: [w3c, zipkin]}", "propagation", "there is no format `zipkin`"),
        ] {
            let mistakes = tracing(yaml).mistakes;
            assert!(mistakes.len() == 1 && mistakes[0].setting == setting, "{yaml}: {mistakes:?}");
            assert!(mistakes[0].problem.starts_with(problem), "{yaml}: {mistakes:?}");
        }
    }
}
