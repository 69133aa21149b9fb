/** The wire vocabulary: .proto files, generated types, and codecs between wire and model. */
export {};
