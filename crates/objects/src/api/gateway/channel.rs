//! The two release channels of the Gateway API.

/// Release channel that determines which kinds and fields exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    Standard,
    Experimental,
}

impl Channel {
    pub const ALL: [Channel; 2] = [Channel::Standard, Channel::Experimental];

    /// Name in the release files and in `--channel`.
    pub const fn name(self) -> &'static str {
        match self {
            Channel::Standard => "standard",
            Channel::Experimental => "experimental",
        }
    }
}
