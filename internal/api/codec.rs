//! How messages are read off the wire.
//!
//! The rule this module protects: a request body that is no message of its type is the client's error, and the client
//! is told so. (The codec of tonic calls it INTERNAL.)

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

/// Protobuf, as [`ProstCodec`] does it, but for the status of what cannot be decoded.
#[derive(Debug)]
pub struct Protobuf<T, U>(ProstCodec<T, U>);

impl<T, U> Default for Protobuf<T, U> {
    fn default() -> Self {
        Self(ProstCodec::new())
    }
}

impl<T, U> Codec for Protobuf<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = Strict<<ProstCodec<T, U> as Codec>::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Strict(self.0.decoder())
    }
}

/// A decoder that blames the sender.
#[derive(Debug)]
pub struct Strict<D>(D);

impl<D: Decoder<Error = Status>> Decoder for Strict<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        // What prost says names fields of the contract and nothing of their content.
        self.0.decode(bytes).map_err(|status| Status::invalid_argument(status.message()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
