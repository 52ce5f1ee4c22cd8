//! Where the objects of a translated file belong.

/// Where the objects belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TranslationSettings {
    pub namespace: String,
    /// The class of Ingresses, consumers and global plugins.
    pub class: String,
}
