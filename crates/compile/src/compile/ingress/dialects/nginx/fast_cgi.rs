//! What FastCGI servers get of the requests of an Ingress: `fastcgi-index` and `fastcgi-params-configmap`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config_map::NginxConfig;
use super::referenced_objects::report_missing;
use super::value_reader::ValueReader;
use crate::api::{Kind, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::AnnotatedProtocol;
use crate::snapshot::fast_cgi::{FastCgiScript, ParamText};

/// The script of an Ingress whose Services are FastCGI servers; `None` for others.
pub(super) fn read(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    config: &NginxConfig,
    protocol: AnnotatedProtocol,
) -> Option<Arc<FastCgiScript>> {
    let index = reader.text(INDEX).map(str::trim);
    let configured = configured_params(cx, reader, config);
    if protocol != AnnotatedProtocol::FastCgi {
        reader.note_without(&[INDEX, PARAMS], "backend-protocol: FCGI");
        return None;
    }
    if configured.is_none() && index.is_some() {
        let remedy = format!("correct {PARAMS}");
        reader.note(INDEX, &format!("the ConfigMap of {PARAMS} is in another namespace"), &remedy);
    }
    let (index, configured) = configured.map_or((None, Vec::new()), |configured| (index, configured));
    Some(Arc::new(FastCgiScript::new(index, configured)))
}

/// The parameters of the ConfigMap, which is always read in the namespace of the Ingress. `None` if the annotation
/// names another one, and may not.
fn configured_params(
    cx: CompileContext<'_>,
    reader: &mut ValueReader<'_>,
    config: &NginxConfig,
) -> Option<Vec<(String, ParamText)>> {
    let Some(text) = reader.text(PARAMS) else { return Some(Vec::new()) };
    let own = Arc::clone(&reader.meta.key.namespace);
    let text = text.replace(' ', "");
    let name = match text.split_once('/') {
        None => &*text,
        Some((namespace, name)) if *namespace == *own => name,
        Some((namespace, name)) if config.allows_other_namespaces => {
            let message =
                format!("the ConfigMap is read in namespace {own} and not in {namespace}, as in ingress-nginx");
            reader.warn(PARAMS, message, &format!("write {name}"));
            name
        }
        Some(_) => {
            let message = format!("{text} is in another namespace, so it has no effect, as in ingress-nginx");
            reader.warn(PARAMS, message, &format!("name a ConfigMap in namespace {own}"));
            return None;
        }
    };
    let key = ObjectKey::new(&own, name);
    let Some(found) = cx.store.config_maps.get(&key) else {
        report_missing(cx, reader, PARAMS, Kind::ConfigMap, &key);
        return Some(Vec::new());
    };
    let (params, problems) = parse(&found.data);
    for (problem, remedy) in problems {
        reader.refuse(PARAMS, &format!("ConfigMap {key} has {problem}"), remedy);
    }
    Some(params)
}

/// What a ConfigMap has, and what would be right.
type ParamProblem = (String, &'static str);

/// The parameters of a ConfigMap, and what prevents some: what it has, and what would be right.
fn parse(data: &BTreeMap<String, Arc<str>>) -> (Vec<(String, ParamText)>, Vec<ParamProblem>) {
    let bytes: usize = data.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_BYTES {
        let problem = format!("{bytes} bytes of parameters, and each request may have {MAX_BYTES} bytes of them");
        return (Vec::new(), vec![(problem, "remove some")]);
    }
    let (mut params, mut problems) = (Vec::new(), Vec::new());
    for (name, value) in data {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            let problem = format!("the key {name:?}, which is not the name of a parameter");
            problems.push((problem, "write letters, digits, dots, - and _"));
        } else if !value.bytes().all(|byte| is_name(byte) || b"${}/".contains(&byte)) {
            let problem = format!("the value {value:?} of {name}, in which a character is not allowed");
            problems.push((problem, "write letters, digits, dots, /, - and _, and variables"));
        } else {
            match ParamText::parse(value) {
                Ok(text) => params.push((name.clone(), text)),
                Err(error) => {
                    let problem = format!("the value {value:?} of {name}, which {error}");
                    problems.push((problem, "use another variable, such as $fastcgi_script_name, or a literal text"));
                }
            }
        }
    }
    (params, problems)
}

const INDEX: &str = "fastcgi-index";
const PARAMS: &str = "fastcgi-params-configmap";
/// In bytes of names and values.
const MAX_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_those_of_ingress_nginx() {
        for (name, value, expected) in [
            ("SCRIPT_FILENAME", "/srv$fastcgi_script_name", None),
            ("HTTP_PROXY", "", None),
            ("a.b-c", "${document_root}/x", None),
            ("A B", "x", Some("the key \"A B\", which is not the name of a parameter")),
            ("A", "x y", Some("the value \"x y\" of A, in which a character is not allowed")),
            ("A", "x;", Some("the value \"x;\" of A, in which a character is not allowed")),
            (
                "A",
                "$foo",
                Some("the value \"$foo\" of A, which reads `$foo`, which is not a variable that is supported"),
            ),
            ("A", "${host", Some("the value \"${host\" of A, which has a variable without a closing brace")),
        ] {
            let (params, problems) = parse(&BTreeMap::from([(name.to_owned(), value.into())]));
            assert_eq!(problems.first().map(|(problem, _)| &**problem), expected, "{name}: {value}");
            assert_eq!((params.len(), problems.len()), if expected.is_none() { (1, 0) } else { (0, 1) });
        }
    }

    #[test]
    fn parameters_are_limited() {
        let data = |bytes: usize| BTreeMap::from([("A".to_owned(), Arc::from("x".repeat(bytes - 1)))]);
        assert_eq!(parse(&data(MAX_BYTES)).1, []);
        assert_eq!(parse(&data(MAX_BYTES + 1)).1.len(), 1);
    }
}
