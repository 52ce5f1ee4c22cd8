//! Snippets of nginx configuration, as the annotations `configuration-snippet` and `server-snippet` of ingress-nginx
//! have them. nginx is not run, and no text is put into a configuration: a snippet is compiled to what a request reads.
//!
//! ```text
//!   text ─ lexer ─▶ directive_tree ─ compile ─▶ Snippet ┬ program   set, if, return, rewrite, break: in order
//!                        │                              ├ outer     fields and access rules outside of all `if`s
//!                   RefusedSnippet                      ├ blocks    the same for each `if`, with what it inherits
//!                                                       ├ body      texts that are replaced in bodies of responses
//!                                                       └ rewrites  of URLs and cookies in responses of endpoints
//!
//!   request ─▶ Snippet::run ─▶ SnippetRun ┬ reply, failed, target
//!                                         ├ verdict, input_edits, sent_edits of the active block
//!                                         └ set_response_fields
//! ```
//!
//! The active block is that of the last `if` that was true, as in nginx. One directive that is not supported refuses
//! the whole snippet, because the others could depend on it.

mod access;
mod auth_snippet;
mod block;
mod body_edits;
mod compile;
mod directive_tree;
mod endpoint_rewrites;
mod error_page;
mod expires;
mod expression;
mod field_value;
mod ignored;
mod inspection;
mod lexer;
mod program;
mod refusal;
mod remedies;
mod request_fields;
mod response_directives;
mod response_fields;
mod restriction;
mod rewrite_directives;
mod rewrite_state;
mod run;
mod server_locations;
mod set_cookie;
mod settings;
mod snippet;
mod target_encoding;
#[cfg(test)]
mod tests;
mod text;
mod units;
mod value_rewrite;
mod variable;
mod variable_scope;

pub use access::SnippetVerdict;
pub use auth_snippet::AuthSnippet;
pub(crate) use body_edits::BodyReplacements;
pub use compile::SnippetPlace;
pub use endpoint_rewrites::EndpointRewrites;
pub use ignored::IgnoredDirective;
pub use inspection::SnippetHost;
pub use refusal::RefusedSnippet;
pub(crate) use request_fields::RequestFieldEdit;
pub(crate) use response_fields::SnippetResponseOrigin;
pub(crate) use run::LocationSearch;
pub use run::{SnippetFailure, SnippetReply, SnippetRun, SnippetTarget};
pub use server_locations::MatchedLocation;
pub use settings::SnippetSettings;
pub use snippet::{LocationModifier, Snippet, SnippetLocation};
pub(in crate::snapshot) use text::split_name;
pub use text::{InvalidSnippetText, SnippetText};
pub use units::parse_time;
pub use variable::{CertificateVariable, SnippetValues, SnippetVariable};
