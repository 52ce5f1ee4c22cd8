//! The two sets of definitions that one release of the Gateway API publishes.

/// Which release channel decides what exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Standard,
    Experimental,
}

impl Channel {
    pub const ALL: [Channel; 2] = [Channel::Standard, Channel::Experimental];

    /// The word of the release and of `--channel`.
    pub const fn name(self) -> &'static str {
        match self {
            Channel::Standard => "standard",
            Channel::Experimental => "experimental",
        }
    }
}
