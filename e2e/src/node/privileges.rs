//! The security context of a container: users, groups and capabilities.

use k8s_openapi::api::core::v1::{Container, PodSpec, SecurityContext};

/// The merged security contexts of Pod and container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Privileges {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) groups: Vec<u32>,
    /// The group that may read and write all volumes.
    pub(crate) group_of_volumes: Option<u32>,
    /// Capabilities that neither the program nor its children can have.
    pub(crate) dropped: Vec<&'static str>,
    pub(crate) may_gain: bool,
    /// Only volumes are writable.
    pub(crate) read_only: bool,
}

/// All capabilities of the kernel, and whether containers have them by default.
const CAPABILITIES: &[(&str, bool)] = &[
    ("audit_control", false),
    ("audit_read", false),
    ("audit_write", true),
    ("block_suspend", false),
    ("bpf", false),
    ("checkpoint_restore", false),
    ("chown", true),
    ("dac_override", true),
    ("dac_read_search", false),
    ("fowner", true),
    ("fsetid", true),
    ("ipc_lock", false),
    ("ipc_owner", false),
    ("kill", true),
    ("lease", false),
    ("linux_immutable", false),
    ("mac_admin", false),
    ("mac_override", false),
    ("mknod", true),
    ("net_admin", false),
    ("net_bind_service", true),
    ("net_broadcast", false),
    ("net_raw", true),
    ("perfmon", false),
    ("setfcap", true),
    ("setgid", true),
    ("setpcap", true),
    ("setuid", true),
    ("sys_admin", false),
    ("sys_boot", false),
    ("sys_chroot", true),
    ("sys_module", false),
    ("sys_nice", false),
    ("sys_pacct", false),
    ("sys_ptrace", false),
    ("sys_rawio", false),
    ("sys_resource", false),
    ("sys_time", false),
    ("sys_tty_config", false),
    ("syslog", false),
    ("wake_alarm", false),
];

impl Privileges {
    /// The container's settings take precedence over the Pod's, and those over the image's.
    pub(crate) fn from_spec(spec: &PodSpec, container: &Container, user_of_image: u32) -> Result<Privileges, String> {
        let pod = spec.security_context.clone().unwrap_or_default();
        let own = container.security_context.clone().unwrap_or_default();
        if own.privileged == Some(true) {
            return Err("spec.containers[0].securityContext.privileged: not supported by this node".to_owned());
        }
        let user = number("runAsUser", own.run_as_user.or(pod.run_as_user))?.unwrap_or(user_of_image);
        if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) && user == 0 {
            return Err("securityContext.runAsNonRoot: the container would run as root; set runAsUser".to_owned());
        }
        // The default is the image's user ID, since its group has the same number.
        let group = number("runAsGroup", own.run_as_group.or(pod.run_as_group))?.unwrap_or(user_of_image);
        let mut groups = Vec::new();
        for other in pod.supplemental_groups.unwrap_or_default() {
            groups.extend(number("supplementalGroups", Some(other))?);
        }
        let group_of_volumes = number("fsGroup", pod.fs_group)?;
        groups.extend(group_of_volumes);
        Ok(Privileges {
            user,
            group,
            groups,
            group_of_volumes,
            dropped: dropped(&own)?,
            may_gain: own.allow_privilege_escalation != Some(false),
            read_only: own.read_only_root_filesystem == Some(true),
        })
    }
}

fn dropped(own: &SecurityContext) -> Result<Vec<&'static str>, String> {
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let names = |names: Option<Vec<String>>| -> Result<Vec<String>, String> {
        let names = names.unwrap_or_default().into_iter().map(|name| parse_capability(&name));
        names.collect()
    };
    let (added, dropped) = (names(capabilities.add)?, names(capabilities.drop)?);
    let listed = |list: &[String], name: &str| list.iter().any(|other| other == name || other == "all");
    let has = |name: &str, usual: bool| {
        // Like container runtimes: individual names take precedence over `ALL`, and `add` over `drop`.
        added.iter().any(|other| other == name)
            || !dropped.iter().any(|other| other == name)
                && (listed(&added, "all") || usual && !listed(&dropped, "all"))
    };
    Ok(CAPABILITIES.iter().filter(|(name, usual)| !has(name, *usual)).map(|(name, _)| *name).collect())
}

fn parse_capability(name: &str) -> Result<String, String> {
    let lower = name.to_ascii_lowercase();
    let lower = lower.strip_prefix("cap_").unwrap_or(&lower);
    if lower != "all" && !CAPABILITIES.iter().any(|(name, _)| *name == lower) {
        return Err(format!("securityContext.capabilities: unknown capability `{name}`"));
    }
    Ok(lower.to_owned())
}

fn number(field: &str, number: Option<i64>) -> Result<Option<u32>, String> {
    let number = number.map(|number| {
        u32::try_from(number).map_err(|_| format!("securityContext.{field}: {number} is not a user or group number"))
    });
    number.transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn privileges(pod: &Value, container: &Value) -> Result<Privileges, String> {
        let container = json!({ "name": "main", "securityContext": container });
        let spec = json!({ "containers": [container], "securityContext": pod });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        Privileges::from_spec(&spec, &spec.containers[0], 65532)
    }

    #[test]
    fn container_settings_override_pod_and_image() {
        for (pod, container, expected) in [
            (json!({}), json!({}), (65532, 65532)),
            (json!({ "runAsUser": 1, "runAsGroup": 2 }), json!({}), (1, 2)),
            (json!({ "runAsUser": 1, "runAsGroup": 2 }), json!({ "runAsUser": 3, "runAsGroup": 4 }), (3, 4)),
        ] {
            let privileges = privileges(&pod, &container).unwrap();
            assert_eq!((privileges.user, privileges.group), expected, "{pod} {container}");
        }
        let error = privileges(&json!({ "runAsUser": 0, "runAsNonRoot": true }), &json!({})).unwrap_err();
        assert!(error.contains("runAsNonRoot"), "{error}");
    }

    #[test]
    fn capabilities_are_added_to_and_dropped_from_defaults() {
        for (capabilities, kept) in [
            (json!({}), vec!["chown", "net_bind_service"]),
            (json!({ "drop": ["ALL"] }), vec![]),
            (json!({ "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] }), vec!["net_bind_service"]),
            (json!({ "drop": ["CHOWN"], "add": ["CAP_NET_ADMIN"] }), vec!["net_admin", "net_bind_service"]),
        ] {
            let privileges = privileges(&json!({}), &json!({ "capabilities": capabilities })).unwrap();
            for name in ["chown", "net_admin", "net_bind_service"] {
                assert_eq!(!privileges.dropped.contains(&name), kept.contains(&name), "{capabilities}: {name}");
            }
        }
        let error = privileges(&json!({}), &json!({ "capabilities": { "add": ["FLY"] } })).unwrap_err();
        assert!(error.contains("unknown capability `FLY`"), "{error}");
    }
}
