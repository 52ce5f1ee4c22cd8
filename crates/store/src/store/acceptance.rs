//! What the status of a Gateway keeps of its class: the controller that has accepted the Gateway.
//!
//! A Gateway whose GatewayClass was deleted is served as before, also by a process that starts afterwards and has never
//! read the class. It reads the message of the condition Accepted instead. The permission to write Gateways does not
//! include their status, so authors of Gateways cannot change the message. A controller that takes over the class
//! replaces it, since every controller of the Gateway API writes this condition.

use serde_json::Value;

/// How the message of the condition Accepted begins. [`accepting_controller`] reads it, also that of other versions of
/// Portico: a change would stop Gateways without a class during an update.
pub fn acceptance(controller: &str, class: &str) -> String {
    format!("{PREFIX}{controller}{FOR_CLASS}{class}.")
}

/// The controller that has accepted a Gateway with this class, by the status of the Gateway. None if none of Portico's
/// has, or if it had another class then.
pub fn accepting_controller<'s>(status: &'s Value, class: &str) -> Option<&'s str> {
    let conditions = status.get("conditions")?.as_array()?;
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted")?;
    if accepted["status"] != "True" {
        return None;
    }
    let (controller, rest) = accepted["message"].as_str()?.strip_prefix(PREFIX)?.split_once(FOR_CLASS)?;
    let rest = rest.strip_prefix(class)?.strip_prefix('.')?;
    // The name of a class may contain dots.
    (rest.is_empty() || rest.starts_with(' ')).then_some(controller)
}

const PREFIX: &str = "Accepted by ";
const FOR_CLASS: &str = " for GatewayClass ";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn controller_is_read_for_the_same_class_only() {
        let ours = acceptance("a.example/c", "web");
        assert_eq!(ours, "Accepted by a.example/c for GatewayClass web.", "statuses of other versions have this text");
        let with_problems = format!("{ours} spec.listeners[0]: the port is 80.");
        let status = |condition: &str, status: &str, message: &str| json!({"conditions": [{"type": "x/Other"}, {"type": condition, "status": status, "message": message}]});
        let cases = [
            (status("Accepted", "True", &ours), "web", Some("a.example/c")),
            (status("Accepted", "True", &with_problems), "web", Some("a.example/c")),
            (status("Accepted", "True", &ours), "other", None),
            (status("Accepted", "True", &ours), "we", None),
            (status("Accepted", "True", &acceptance("a.example/c", "web.x")), "web", None),
            (status("Accepted", "True", &acceptance("a.example/c", "web.x")), "web.x", Some("a.example/c")),
            (status("Accepted", "False", &ours), "web", None),
            (status("Programmed", "True", &ours), "web", None),
            (status("Accepted", "True", "The Gateway is scheduled by another controller."), "web", None),
            (json!({"conditions": [{"type": "Accepted", "status": "True", "message": 5}]}), "web", None),
            (json!({"conditions": "none"}), "web", None),
            (json!(null), "web", None),
        ];
        for (status, class, expected) in cases {
            assert_eq!(accepting_controller(&status, class), expected, "{class}: {status}");
        }
    }
}
