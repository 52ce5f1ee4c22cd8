//! The chains of plugins: which plugins run for the requests of a rule or the connections of a route, in which order
//! and phase. The proxy runs them; the compiler builds them with a [`PluginFactory`].

pub mod background;
pub mod chain;
pub mod factory;
pub mod stream_chain;
pub mod testing;

pub use chain::Chain;
pub use factory::PluginFactory;
pub use stream_chain::StreamChain;
