//! The elements of msc-dist-conf/1.0, one file each.

pub mod load;

/// The namespace of the package's elements.
pub const NAMESPACE: &str = "urn:x-msc-dist-conf:1.0";
