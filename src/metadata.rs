//! What a source says about an endpoint beside its address.

/// Key and value pairs, sorted by key.
pub type Metadata = std::collections::BTreeMap<String, String>;
