//! Adds the installed release of the Gateway API, its features and the kinds that cannot be read to a GatewayClass's
//! verdict.

use crate::diagnostic::Diagnostic;
use crate::k8s::InstalledApis;
use crate::verdict::{Code, Condition, Verdict};

use super::features;

/// The minor version of the newest supported release, 1.7.
const NEWEST_MINOR: u32 = 7;

/// The verdict on a GatewayClass with the installed release; None if the class belongs to another controller, or if the
/// installed release is not known yet.
pub fn apply_installed(verdict: &Verdict, installed: &InstalledApis) -> Option<Verdict> {
    let is_of_portico_class =
        |condition: &Condition| matches!(condition.code, Code::ClassAccepted | Code::ClassInvalidParameters);
    if !installed.release_settled || !verdict.conditions.iter().any(is_of_portico_class) {
        return None;
    }
    let minor = installed.bundle_version.as_deref().and_then(minor_version);
    let mut combined = verdict.clone();
    let diagnostics = installed.unreadable.keys().map(|kind| {
        let (group, resources) = (kind.group(), kind.plural());
        let message = format!("objects of kind {kind} cannot be read");
        let remedy = format!(
            "allow list and watch on {resources} of \"{group}\" in Portico's ClusterRole; its log has the error"
        );
        Diagnostic::of_object(message, remedy).into_warning()
    });
    if let Some(condition) = combined.conditions.iter_mut().find(|condition| condition.code == Code::ClassAccepted) {
        condition.diagnostics.extend(diagnostics);
    }
    combined.conditions.push(version_condition(installed.bundle_version.as_deref(), minor));
    let is_experimental = installed.channel.as_deref() == Some("experimental");
    combined.supported_features = minor
        .map_or_else(Vec::new, |minor| features::supported(minor, is_experimental, |kind| installed.can_read(kind)));
    Some(combined)
}

fn version_condition(bundle: Option<&str>, minor: Option<u32>) -> Condition {
    let unsupported = |message: String, remedy: &str| {
        Condition::new(Code::ClassUnsupportedVersion, vec![Diagnostic::of_object(message, remedy.to_owned())])
    };
    match (bundle, minor) {
        (None, _) => unsupported(
            "the CRDs of Gateway API name no release, name different releases, or cannot be read".to_owned(),
            "install all CRDs of one release, and allow list and watch on customresourcedefinitions; until then \
             Portico serves the fields that it knows",
        ),
        (Some(bundle), None) => unsupported(
            format!("release {bundle} of Gateway API is not known"),
            "install a release 1.x; until then Portico serves the fields that it knows",
        ),
        (Some(bundle), Some(minor)) if minor > NEWEST_MINOR => unsupported(
            format!("release {bundle} of Gateway API is newer than 1.{NEWEST_MINOR}, the newest supported release"),
            "update Portico; newer fields have no effect",
        ),
        (Some(bundle), Some(minor)) if minor < NEWEST_MINOR => Condition::new(
            Code::ClassSupportedVersion,
            vec![Diagnostic::of_object(
                format!("release {bundle} of Gateway API lacks fields that later releases up to 1.{NEWEST_MINOR} add"),
                format!("install the CRDs of 1.{NEWEST_MINOR} to use these fields"),
            )],
        ),
        (Some(_), Some(_)) => Condition::without_diagnostics(Code::ClassSupportedVersion),
    }
}

/// The `x` of `v1.x.y`.
fn minor_version(bundle: &str) -> Option<u32> {
    let (minor, _) = bundle.strip_prefix("v1.")?.split_once('.')?;
    minor.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;

    fn class(code: Code) -> Verdict {
        Verdict { generation: 1, conditions: vec![Condition::without_diagnostics(code)], ..Verdict::default() }
    }

    #[test]
    fn release_is_reported_and_limits_the_features() {
        for (bundle, code, message, features) in [
            (Some("v1.7.0"), Code::ClassSupportedVersion, "is served", 50),
            (Some("v1.7.3"), Code::ClassSupportedVersion, "is served", 50),
            (Some("v1.7.0-rc.1"), Code::ClassSupportedVersion, "is served", 50),
            (Some("v1.5.1"), Code::ClassSupportedVersion, "install the CRDs of 1.7", 40),
            (Some("v1.0.0"), Code::ClassSupportedVersion, "lacks fields", 0),
            (Some("v1.12.0"), Code::ClassUnsupportedVersion, "update Portico", 50),
            (Some("v2.0.0"), Code::ClassUnsupportedVersion, "release 1.x", 0),
            (Some("v1.99999999999.0"), Code::ClassUnsupportedVersion, "not known", 0),
            (Some("nonsense"), Code::ClassUnsupportedVersion, "not known", 0),
            (None, Code::ClassUnsupportedVersion, "one release", 0),
        ] {
            let channel = Some("experimental".to_owned());
            let bundle_version = bundle.map(str::to_owned);
            let installed =
                InstalledApis { release_settled: true, bundle_version, channel, ..InstalledApis::default() };
            let combined = apply_installed(&class(Code::ClassAccepted), &installed).unwrap();
            assert_eq!(combined.conditions[1].code, code, "{bundle:?}");
            let text = combined.conditions[1].message();
            assert!(text.contains(message), "{bundle:?}: {text}");
            assert_eq!(combined.supported_features.len(), features, "{bundle:?}");
        }
    }

    #[test]
    fn unreadable_kinds_are_named() {
        let unreadable = [(Kind::BackendTlsPolicy, "403".to_owned()), (Kind::Service, "500".to_owned())].into();
        let installed = InstalledApis { release_settled: true, unreadable, ..InstalledApis::default() };
        let combined = apply_installed(&class(Code::ClassAccepted), &installed).unwrap();
        assert_eq!(combined.conditions[0].code, Code::ClassAccepted);
        let message = combined.conditions[0].message();
        for part in ["BackendTLSPolicy", "backendtlspolicies of \"gateway.networking.k8s.io\"", "services of \"\""] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn foreign_classes_are_unchanged() {
        let installed = InstalledApis { release_settled: true, ..InstalledApis::default() };
        assert_eq!(apply_installed(&Verdict::default(), &installed), None);
        assert_eq!(
            apply_installed(&class(Code::ClassAccepted), &InstalledApis::default()),
            None,
            "the release is not known yet"
        );
    }
}
