//! A GatewayClass's verdict joined with what only the API server knows: which release of Gateway API is installed.

use crate::compile::verdict::{Code, Condition, Problem, Verdict};
use crate::k8s::Installed;

use super::features;

/// The newest release 1.x whose fields are known here.
const NEWEST: u32 = 7;

/// The verdict on a GatewayClass, now that it is known what is installed. None if that changes nothing, as for the classes
/// of others, or if it is not known yet.
pub fn with_installed(verdict: &Verdict, installed: &Installed) -> Option<Verdict> {
    let ours = |condition: &Condition| matches!(condition.code, Code::ClassAccepted | Code::ClassInvalidParameters);
    if !installed.release_settled || !verdict.conditions.iter().any(ours) {
        return None;
    }
    let release = installed.bundle_version.as_deref().and_then(minor);
    let mut joined = verdict.clone();
    let remarks = installed.unreadable.keys().map(|kind| {
        let (group, resources) = (kind.group(), kind.plural());
        let message = format!("objects of kind {kind} cannot be read");
        let remedy =
            format!("allow list and watch on {resources} of \"{group}\" in the ClusterRole, or see the log for why");
        Problem::new("", message, remedy)
    });
    if let Some(condition) = joined.conditions.iter_mut().find(|condition| condition.code == Code::ClassAccepted) {
        condition.problems.extend(remarks);
    }
    joined.conditions.push(version(installed.bundle_version.as_deref(), release));
    let experimental = installed.channel.as_deref() == Some("experimental");
    joined.supported_features = features::supported(release.unwrap_or(0), experimental);
    Some(joined)
}

fn version(bundle: Option<&str>, release: Option<u32>) -> Condition {
    let unsupported = |what: String, remedy: &str| {
        Condition::new(Code::ClassUnsupportedVersion, vec![Problem::new("", what, remedy.to_owned())])
    };
    match (bundle, release) {
        (None, _) => unsupported(
            "the CRDs of Gateway API name no release, or not all the same, or may not be read".to_owned(),
            "install all CRDs of one release, and allow list and watch on customresourcedefinitions; what there is is \
             served as far as it is known",
        ),
        (Some(bundle), None) => unsupported(
            format!("release {bundle} of Gateway API is not known"),
            "install a release 1.x; what there is is served as far as it is known",
        ),
        (Some(bundle), Some(minor)) if minor > NEWEST => unsupported(
            format!("release {bundle} of Gateway API is newer than 1.{NEWEST}, the newest that is known here"),
            "update Portico; fields that came with it have no effect",
        ),
        (Some(bundle), Some(minor)) if minor < NEWEST => Condition::new(
            Code::ClassSupportedVersion,
            vec![Problem::new(
                "",
                format!("release {bundle} of Gateway API lacks what came until 1.{NEWEST}"),
                format!("install the CRDs of 1.{NEWEST} to use all of it"),
            )],
        ),
        (Some(_), Some(_)) => Condition::plain(Code::ClassSupportedVersion),
    }
}

/// The `x` of `v1.x.y`, whatever follows.
fn minor(bundle: &str) -> Option<u32> {
    let (minor, _) = bundle.strip_prefix("v1.")?.split_once('.')?;
    minor.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;

    fn class(code: Code) -> Verdict {
        Verdict { generation: 1, conditions: vec![Condition::plain(code)], ..Verdict::default() }
    }

    #[test]
    fn the_release_is_said_and_decides_what_is_claimed() {
        for (bundle, code, message, features) in [
            (Some("v1.7.0"), Code::ClassSupportedVersion, "is served", 36),
            (Some("v1.7.3"), Code::ClassSupportedVersion, "is served", 36),
            (Some("v1.7.0-rc.1"), Code::ClassSupportedVersion, "is served", 36),
            (Some("v1.5.1"), Code::ClassSupportedVersion, "install the CRDs of 1.7", 32),
            (Some("v1.0.0"), Code::ClassSupportedVersion, "lacks what came", 0),
            (Some("v1.12.0"), Code::ClassUnsupportedVersion, "update Portico", 36),
            (Some("v2.0.0"), Code::ClassUnsupportedVersion, "release 1.x", 0),
            (Some("v1.99999999999.0"), Code::ClassUnsupportedVersion, "not known", 0),
            (Some("nonsense"), Code::ClassUnsupportedVersion, "not known", 0),
            (None, Code::ClassUnsupportedVersion, "one release", 0),
        ] {
            let channel = Some("experimental".to_owned());
            let bundle_version = bundle.map(str::to_owned);
            let installed = Installed { release_settled: true, bundle_version, channel, ..Installed::default() };
            let joined = with_installed(&class(Code::ClassAccepted), &installed).unwrap();
            assert_eq!(joined.conditions[1].code, code, "{bundle:?}");
            let said = joined.conditions[1].message();
            assert!(said.contains(message), "{bundle:?}: {said}");
            assert_eq!(joined.supported_features.len(), features, "{bundle:?}");
        }
    }

    #[test]
    fn kinds_that_cannot_be_read_are_named() {
        let unreadable = [(Kind::BackendTlsPolicy, "403".to_owned()), (Kind::Service, "500".to_owned())].into();
        let installed = Installed { release_settled: true, unreadable, ..Installed::default() };
        let joined = with_installed(&class(Code::ClassAccepted), &installed).unwrap();
        assert_eq!(joined.conditions[0].code, Code::ClassAccepted);
        let said = joined.conditions[0].message();
        for part in ["BackendTLSPolicy", "backendtlspolicies of \"gateway.networking.k8s.io\"", "services of \"\""] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }

    #[test]
    fn the_classes_of_others_are_left_alone() {
        let installed = Installed { release_settled: true, ..Installed::default() };
        assert_eq!(with_installed(&Verdict::default(), &installed), None);
        assert_eq!(with_installed(&class(Code::ClassAccepted), &Installed::default()), None, "nobody knows yet");
    }
}
