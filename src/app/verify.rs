//! `portico verify`: reads manifests, sends requests that their routes match to a running gateway, and prints what
//! served them.

use std::io::{self, Write};

use anyhow::Context;

use super::progress::CommandProgress;
use super::stdout::print;
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::networking::{Ingress, IngressClass};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::args::{ExitStatus, OutputFormat, SendOption, VerifyOptions};
use crate::compile::{Classes, has_path_expressions};
use crate::manifests::{ManifestUpdate, Manifests};
use crate::report::{self, ReportedDiagnostic};
use crate::store::Store;
use crate::verify::{self, ConnectTo, Expectations, SendMode, Settings, VerificationResult};

/// Verifies the routes of the manifests. The exit status shows whether all are served as written.
pub fn verify(options: VerifyOptions) -> anyhow::Result<ExitStatus> {
    let mut manifests = Manifests::new(options.paths.clone(), options.channel);
    let update = manifests.read();
    let argument_missing = update.lacks_one_of(&options.paths);
    let is_invalid = report_invalid_objects(&update, &options)?;
    if argument_missing {
        return Ok(ExitStatus::Usage);
    }
    let mut store = Store::default();
    store.apply(update.batch);
    let expectations = expectations(&store);
    let settings = Settings {
        admin: options.admin,
        connect_to: options
            .connect_to
            .iter()
            .map(|entry| ConnectTo { port: entry.port, address: entry.address })
            .collect(),
        mode: match options.send {
            SendOption::None => SendMode::Never,
            SendOption::Safe => SendMode::Safe,
            SendOption::All => SendMode::All,
        },
        timeout: options.timeout,
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let requests = runtime.block_on(async {
        let mut progress = CommandProgress::new(options.stderr_is_terminal);
        let requests =
            verify::verify(&settings, &expectations, |done, all| progress.show(|| format!("Verified {done} of {all}")))
                .await;
        progress.clear();
        requests
    })?;
    match options.output {
        OutputFormat::Json => print(&verify::json(&requests))?,
        OutputFormat::Text => {
            print(&verify::text(&requests))?;
            print(&left_out(&store))?;
        }
    }
    let differs = requests.iter().any(|request| request.result() == VerificationResult::Differs);
    Ok(if differs || is_invalid { ExitStatus::Rejected } else { ExitStatus::Success })
}

/// Prints the objects that cannot be read to stderr. Whether there are any.
fn report_invalid_objects(update: &ManifestUpdate, options: &VerifyOptions) -> anyhow::Result<bool> {
    let mut diagnostics: Vec<ReportedDiagnostic> = update.diagnostics.iter().map(report::from_manifest).collect();
    report::sort(&mut diagnostics);
    let text = report::terminal(&diagnostics, options.color_stderr);
    io::stderr().write_all(text.as_bytes()).context("cannot write to stderr")?;
    Ok(diagnostics.iter().any(|reported| reported.diagnostic.is_error()))
}

fn expectations(store: &Store) -> Expectations {
    let mut expectations = Expectations::default();
    // Of a rejected object, the store has what is refused.
    let is_valid = |kind: Kind, key: &ObjectKey| !store.is_rejected(&ObjectId::new(kind, key.clone()));
    for route in store.http_routes.values().filter(|route| is_valid(Kind::HttpRoute, &route.meta.key)) {
        expectations.add_http_route(route);
    }
    for route in store.grpc_routes.values().filter(|route| is_valid(Kind::GrpcRoute, &route.meta.key)) {
        expectations.add_grpc_route(route);
    }
    for ingress in store.ingresses.values().filter(|ingress| is_valid(Kind::Ingress, &ingress.meta.key)) {
        expectations.add_ingress(ingress, !has_path_expressions(class_of(store, ingress)));
    }
    expectations
}

/// The class of an Ingress in the manifests; the default class if the Ingress names none.
fn class_of<'s>(store: &'s Store, ingress: &Object<Ingress>) -> Option<&'s Object<IngressClass>> {
    let annotation = ingress.meta.annotations.get(INGRESS_CLASS).map(|class| &**class);
    match annotation.or(ingress.spec.ingress_class_name.as_deref()) {
        Some(name) => store.ingress_classes.get(&ObjectKey::cluster(name)).map(|class| &**class),
        None => Classes::default().default_class(store),
    }
}

/// The routes of kinds for which no requests are derived.
fn left_out(store: &Store) -> String {
    let counts = [
        (Kind::TcpRoute, store.tcp_routes.len()),
        (Kind::TlsRoute, store.tls_routes.len()),
        (Kind::UdpRoute, store.udp_routes.len()),
        (Kind::TcpIngress, store.tcp_ingresses.len()),
        (Kind::UdpIngress, store.udp_ingresses.len()),
    ];
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(kind, count)| report::count(count as u64, kind.name())).collect();
    match &counts[..] {
        [] => String::new(),
        counts => format!("Left out, because their connections have no requests: {}\n", counts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::kong::annotations::IS_DEFAULT_CLASS;
    use crate::api::names::{DIALECT_ANNOTATION, INGRESS_CONTROLLER};
    use crate::store::{AnyObject, Batch};

    #[test]
    fn ingress_without_class_has_the_dialect_of_the_default_class() {
        let annotations = |dialect| json!({IS_DEFAULT_CLASS: "true", DIALECT_ANNOTATION: dialect});
        for (dialect, expected) in [("kong", true), ("kubernetes", false)] {
            let metadata = json!({"name": "c", "annotations": annotations(dialect)});
            let class = json!({"metadata": metadata, "spec": {"controller": INGRESS_CONTROLLER}});
            let ingress = json!({"metadata": {"namespace": "ns", "name": "i"}, "spec": {}});
            let mut store = Store::default();
            let objects = [(Kind::IngressClass, class), (Kind::Ingress, ingress)];
            let upserts = objects.map(|(kind, object)| AnyObject::parse(kind, object).unwrap()).into();
            store.apply(Batch { upserts, removes: vec![] });
            let ingress = &store.ingresses[&ObjectKey::new("ns", "i")];
            assert_eq!(has_path_expressions(class_of(&store, ingress)), expected, "{dialect}");
        }
    }
}
