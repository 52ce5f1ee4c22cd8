//! The settings of a route that are no conditions.

use super::super::fields::EntityFields;
use super::super::objects::Draft;
use crate::api::kong::annotations::{HTTPS_REDIRECT_STATUS_CODE, PRESERVE_HOST, REGEX_PRIORITY, STRIP_PATH};

pub(super) fn read(fields: &mut EntityFields<'_>, draft: &mut Draft, serves_grpc: bool) {
    let strip_path = fields.flag("strip_path").unwrap_or(!serves_grpc);
    if strip_path && serves_grpc {
        fields.findings.reject(fields.field("strip_path"), "the path of a gRPC call is its method", "remove it");
    }
    draft.annotate(STRIP_PATH, strip_path.to_string());
    draft.annotate(PRESERVE_HOST, fields.flag("preserve_host").unwrap_or(false).to_string());
    if let Some(status) = fields.number("https_redirect_status_code", 301, 426).filter(|status| *status != 426) {
        if ![301, 302, 307, 308].contains(&status) {
            let message = format!("{status} is not a status of redirects to https");
            let field = fields.field("https_redirect_status_code");
            fields.findings.reject(field, message, "write 426, 301, 302, 307 or 308");
        }
        draft.annotate(HTTPS_REDIRECT_STATUS_CODE, status.to_string());
    }
    if let Some(priority) = fields.number("regex_priority", i64::MIN, i64::MAX).filter(|priority| *priority != 0) {
        draft.annotate(REGEX_PRIORITY, priority.to_string());
    }
    let path_handling = fields.text("path_handling").unwrap_or_else(|| "v0".to_owned());
    if !["v0", "v1"].contains(&&*path_handling) {
        let message = format!("{path_handling:?} is unknown");
        fields.findings.reject(fields.field("path_handling"), message, "write v0 or v1, or remove it");
    }
    if path_handling == "v1" {
        let message = "paths are joined as with v0, as Kong does unless router_flavor is traditional";
        fields.findings.differs(fields.field("path_handling"), message, "remove it, and check the path of the service");
    }
    // Bodies always stream, so these have no effect on what endpoints and clients get.
    for name in ["request_buffering", "response_buffering"] {
        fields.flag(name);
    }
}
