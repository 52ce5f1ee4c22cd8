//! Kong's kinds that are read and not served: each says which of its fields are not in effect, so that nobody relies on
//! them. Only a license has nothing to say: everything works without one.

use super::Inputs;
use super::verdict::{Code, Condition, Problem, Verdict};
use crate::api::kong::ControlPlaneRef;
use crate::api::{Kind, ObjectId};
use crate::store::Store;

/// None if there is no such object. Objects of other classes are nobody's business here, and get no condition.
pub(super) fn verdict(store: &Store, inputs: &Inputs<'_>, id: &ObjectId) -> Option<Verdict> {
    let meta = store.meta(id)?;
    let own = || inputs.classes.own(store, meta, None);
    let problem = match id.kind {
        Kind::KongVault => {
            let vault = store.kong_vaults.get(&id.key)?;
            let is_here = vault.spec.control_plane_ref.as_ref().is_none_or(ControlPlaneRef::is_here);
            let message = format!(
                "vaults are not read by this version, so plugins that refer to {{vault://{}/…}} cannot be used",
                vault.spec.prefix
            );
            let remedy = "take values from Secrets, with configFrom or configPatches of a KongPlugin";
            (own() && is_here).then(|| Problem::new("spec.backend", message, remedy))
        }
        Kind::KongCustomEntity => {
            let entity = store.kong_custom_entities.get(&id.key)?;
            let message = format!("entities of type {} are not served by this version", entity.spec.kind);
            let remedy = "remove it, if it can be done without";
            let is_ours = inputs.classes.name == entity.spec.controller_name;
            is_ours.then(|| Problem::new("spec.type", message, remedy))
        }
        // Nobody has to have one, but a tree of manifests may, and waits for it.
        Kind::KongLicense => {
            let conditions = vec![Condition::plain(Code::KongProgrammed)];
            return Some(Verdict { generation: meta.generation, conditions, ..Verdict::default() });
        }
        Kind::TcpIngress => own().then(|| streams("TCP")),
        Kind::UdpIngress => own().then(|| streams("UDP")),
        _ => None,
    };
    let conditions = problem.into_iter().map(|problem| Condition::new(Code::KongInvalid, vec![problem])).collect();
    Some(Verdict { generation: meta.generation, conditions, ..Verdict::default() })
}

fn streams(protocol: &str) -> Problem {
    let message = format!("{protocol} is not served by this version, so no port is opened for these rules");
    Problem::new("spec.rules", message, "publish the Service in another way, for example with type LoadBalancer")
}
