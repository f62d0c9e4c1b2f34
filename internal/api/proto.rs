//! What is generated from `proto/`.
//!
//! The rule this module protects: the contract is written in one place, and this is not it.

/// Every file of the contract with what it imports: a FileDescriptorSet.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `financing`.
pub mod financing {
    /// `financing.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("financing.v1");
    }
}

/// `registering`.
pub mod registering {
    /// `registering.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::pedantic, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("registering.v1");
    }
}
