/** The seam to the control plane's channel: where it is, how it is trusted, and what is sent with every call. `pki` fills it. */
import type { ChannelCredentials, ChannelOptions, Metadata } from "@grpc/grpc-js";

export interface ControlPlaneAccess {
  /** `host:port`. */
  readonly target: string;
  readonly channelOptions: ChannelOptions;
  /** Read at every connection: roots are rotated as files. */
  credentials(): Promise<{ readonly credentials: ChannelCredentials }>;
  /** Read at every stream: so are tokens. */
  metadata(): Promise<Metadata>;
}
