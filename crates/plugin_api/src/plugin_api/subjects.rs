//! Whom authentication plugins have verified for a request.
//!
//! ```text
//!   a plugin accepts ──┬─▶ VerifiedSubject ─▶ VerifiedSubjects ─┬▶ all of them: what is stored for the client
//!   a token, a key,    │                                        └▶ the last one: counters, logs, tokens for endpoints
//!   a certificate      └─▶ none, such as for a token without `sub`: nothing is stored, and the address is counted
//! ```
//!
//! A plugin that leaves the consumer as it is only records a subject: that accepts no credential.
//!
//! A subject is a name that its issuer has given. It is never the text that a client has typed, nor what a client can
//! write in several ways, so that one client has one counter. The consumer is independent of it: several users of an
//! application may have the same one.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use super::consumers::digests::{hex, sha256};
use super::consumers::entity_id::EntityId;

/// A client or user, as an issuer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedSubject {
    /// Requests are counted by it, and logs have it.
    credential: EntityId,
    user: CredentialUser,
}

/// Which of the users of a credential a request is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CredentialUser {
    /// The credential has one.
    Only,
    /// The one with this name, by what the owner of the credential says. What is stored is separate for each, and the
    /// counters are not: the owner could choose a new name for each request.
    Named(Arc<str>),
    /// The credential may have several, and does not say which.
    Unknown,
}

impl VerifiedSubject {
    fn new(credential: EntityId) -> Self {
        VerifiedSubject { credential, user: CredentialUser::Only }
    }

    /// The owner of a credential of a consumer, such as a key.
    pub fn of_credential(id: &EntityId) -> Self {
        VerifiedSubject::new(id.clone())
    }

    /// The subject with this name, which is unique for the issuer. `None` if the name is empty, because the clients
    /// without one cannot be distinguished.
    pub fn issued(issuer: &str, name: &str) -> Option<Self> {
        if name.is_empty() {
            return None;
        }
        // No issuer contains the separator, so no two subjects have the same text.
        let text = match issuer.contains(SEPARATOR) {
            true => format!("{}{SEPARATOR}{name}", hex(&sha256(issuer.as_bytes()))),
            false => format!("{issuer}{SEPARATOR}{name}"),
        };
        Some(VerifiedSubject::new(EntityId::from_text(&text)))
    }

    /// An entry of the directory at this host and port, by its distinguished name in the form that all spellings of the
    /// name share. `None` if the name is empty.
    pub fn of_entry(directory: &str, name: &str) -> Option<Self> {
        VerifiedSubject::issued(&format!("ldap://{}", directory.to_ascii_lowercase()), name)
    }

    /// The owner of a certificate, by the part of it that its authority has signed. The signature itself may have
    /// several encodings, and a client may send any certificates with its own.
    pub fn of_certificate(signed_part: &[u8]) -> Self {
        VerifiedSubject::new(EntityId::from_text(&hex(&sha256(signed_part))))
    }

    /// The user for whom the owner of this credential acts. Empty: for itself.
    #[must_use]
    pub fn acting_for(self, name: &str) -> Self {
        if name.is_empty() { self } else { VerifiedSubject { user: CredentialUser::Named(name.into()), ..self } }
    }

    /// One of the users of this credential, such as of an application.
    #[must_use]
    pub fn for_an_unknown_user(self) -> Self {
        VerifiedSubject { user: CredentialUser::Unknown, ..self }
    }

    pub fn credential(&self) -> &EntityId {
        &self.credential
    }

    /// The user, if the credential has several.
    pub fn user(&self) -> Option<&str> {
        match &self.user {
            CredentialUser::Named(name) => Some(name),
            CredentialUser::Only | CredentialUser::Unknown => None,
        }
    }
}

impl Serialize for VerifiedSubject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&*self.credential, &self.user).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for VerifiedSubject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (credential, user) = <(String, CredentialUser)>::deserialize(deserializer)?;
        Ok(VerifiedSubject { credential: EntityId::from_text(&credential), user })
    }
}

/// All subjects of a request, in the order of their plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Option<VerifiedSubject>>", into = "Vec<Option<VerifiedSubject>>")]
pub struct VerifiedSubjects {
    list: SmallVec<[Option<VerifiedSubject>; 1]>,
    /// Whether the list has one of a plugin that determines the consumer.
    has_accepted: bool,
}

impl VerifiedSubjects {
    /// Whether no plugin has accepted a credential or recorded a subject.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a plugin has accepted a credential. Those that leave the consumer as it is do not count.
    pub(crate) fn has_accepted(&self) -> bool {
        self.has_accepted
    }

    /// The subject that the last plugin has verified. `None` if it has accepted a credential without one.
    pub fn last(&self) -> Option<&VerifiedSubject> {
        self.list.last()?.as_ref()
    }

    /// One for each plugin; `None` if its credential has no subject.
    pub fn iter(&self) -> impl Iterator<Item = Option<&VerifiedSubject>> {
        self.list.iter().map(Option::as_ref)
    }

    /// Whether all requests with these subjects are from the same client. Not if a plugin has accepted a credential
    /// that does not say whose it is.
    pub fn identify_the_client(&self) -> bool {
        let is_known = |subject: &VerifiedSubject| subject.user != CredentialUser::Unknown;
        self.list.iter().all(|subject| subject.as_ref().is_some_and(is_known))
    }

    /// Those that others do not contain, or all if there are none: what was verified anew.
    pub fn without(&self, others: &VerifiedSubjects) -> VerifiedSubjects {
        let new = self.list.iter().filter(|subject| !others.list.contains(subject)).cloned();
        let new = VerifiedSubjects { list: new.collect(), has_accepted: self.has_accepted };
        if new.is_empty() { self.clone() } else { new }
    }

    /// Whether these are others to which at most subjects of plugins that leave the consumer as it is were added.
    pub fn continue_those(&self, others: &VerifiedSubjects) -> bool {
        self.list.last() == others.list.last() && others.list.iter().all(|subject| self.list.contains(subject))
    }

    /// Adds the subject of a plugin that determines the consumer, as the last one.
    pub fn accept(&mut self, subject: Option<VerifiedSubject>) {
        self.list.retain(|known| *known != subject);
        self.list.push(subject);
        self.has_accepted = true;
    }

    /// Adds the subject of a plugin that leaves the consumer as it is. It is the last one only if there is no other.
    pub fn record(&mut self, subject: Option<VerifiedSubject>) {
        if !self.list.contains(&subject) {
            self.list.insert(0, subject);
        }
    }
}

/// Those of a session, which begins only with an accepted credential.
impl From<Vec<Option<VerifiedSubject>>> for VerifiedSubjects {
    fn from(subjects: Vec<Option<VerifiedSubject>>) -> Self {
        VerifiedSubjects { has_accepted: !subjects.is_empty(), list: subjects.into() }
    }
}

impl From<VerifiedSubjects> for Vec<Option<VerifiedSubject>> {
    fn from(subjects: VerifiedSubjects) -> Self {
        subjects.list.into_vec()
    }
}

/// No issuer is a URL with a fragment (RFC 8414, section 2).
const SEPARATOR: char = '#';

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(issuer: &str, name: &str) -> VerifiedSubject {
        VerifiedSubject::issued(issuer, name).unwrap()
    }

    fn entry(directory: &str, name: &str) -> VerifiedSubject {
        VerifiedSubject::of_entry(directory, name).unwrap()
    }

    #[test]
    fn subjects_of_two_issuers_are_never_the_same() {
        let subjects = [
            issued("a", "b#c"),
            issued("a#b", "c"),
            issued("a#b#c", "c"),
            issued("a", "b"),
            issued("a", "Zoë"),
            issued("", "a#b"),
            VerifiedSubject::of_certificate(b"a"),
            VerifiedSubject::of_credential(&EntityId::from_text("a")),
            entry("ldap.example:389", "uid=anna"),
            entry("ldap.example:636", "uid=anna"),
            entry("other.example:389", "uid=anna"),
            issued("ldap.example:389", "uid=anna"),
        ];
        for (index, subject) in subjects.iter().enumerate() {
            let is_same = |other: &VerifiedSubject| other.credential() == subject.credential();
            assert!(!subjects[..index].iter().any(is_same), "{subject:?}");
        }
        assert_eq!(VerifiedSubject::issued("a", ""), None);
        assert_eq!(entry("LDAP.example:389", "uid=anna"), subjects[8], "the same host");
        assert_eq!(&**issued("https://login.example", "anna").credential(), "https://login.example#anna");
    }

    #[test]
    fn users_of_one_credential_share_its_counter() {
        let application = VerifiedSubject::of_credential(&EntityId::from_text("shop"));
        let [alice, bob] = ["alice", "bob"].map(|name| application.clone().acting_for(name));
        assert!(alice != bob && alice != application && alice.credential() == bob.credential());
        assert_eq!(application.clone().acting_for(""), application);
        let mut subjects = VerifiedSubjects::default();
        subjects.accept(Some(alice));
        subjects.accept(None);
        let text = serde_json::to_string(&subjects).unwrap();
        assert_eq!(serde_json::from_str::<VerifiedSubjects>(&text).unwrap(), subjects, "as a session keeps them");
    }

    #[test]
    fn all_plugins_count_and_the_last_one_names_the_client() {
        let [key, token] = ["key", "token"].map(|name| issued("a", name));
        let mut subjects = VerifiedSubjects::default();
        assert!(subjects.is_empty() && subjects.identify_the_client() && subjects.last().is_none());
        subjects.record(Some(token.clone()));
        assert_eq!(subjects.last(), Some(&token));
        assert!(!subjects.has_accepted() && !subjects.is_empty(), "it is only recorded");
        subjects.accept(Some(key.clone()));
        assert!(subjects.has_accepted());
        subjects.record(Some(issued("a", "channel")));
        assert_eq!((subjects.last(), subjects.iter().count()), (Some(&key), 3));
        subjects.accept(Some(token.clone()));
        assert_eq!((subjects.last(), subjects.iter().count()), (Some(&token), 3), "each subject counts once");
        subjects.accept(None);
        assert!(!subjects.identify_the_client() && subjects.last().is_none() && !subjects.is_empty());
        let mut of_application = VerifiedSubjects::default();
        of_application.accept(Some(key.for_an_unknown_user()));
        assert!(!of_application.identify_the_client() && of_application.last().is_some());
    }
}
