/** The CA over gRPC: `istio.v1.auth.IstioCertificateService/CreateCertificate` (ztunnel contract 4.5). */
import { IstioCertificateServiceClient } from "@fairway/protocol";
import { MeshError } from "@fairway/runtime";
import { type ServiceError, status } from "@grpc/grpc-js";
import type { CaClient, CertificateRequest } from "./ca-client.ts";
import type { ControlPlane } from "./control-plane.ts";

export interface GrpcCaClientOptions {
  readonly controlPlane: ControlPlane;
  /** A node proxy asks for the identities of its pods and says so; a waypoint asks for its own. */
  readonly impersonate: boolean;
  readonly deadlineMs?: number;
}

const defaultDeadlineMs = 10_000;
/** A chain with many roots is some 100 kB. */
const maxAnswerBytes = 4 * 1024 * 1024;

interface Channel {
  readonly version: string;
  readonly client: IstioCertificateServiceClient;
}

export function grpcCaClient({ controlPlane, impersonate, deadlineMs = defaultDeadlineMs }: GrpcCaClientOptions): CaClient {
  let channel: Channel | undefined;

  /** The channel with the roots as they are now. When they cannot be read, the last one that worked is kept. */
  const current = async (): Promise<Channel> => {
    try {
      const { version, credentials } = await controlPlane.credentials();
      if (channel?.version === version) return channel;
      const options = { ...controlPlane.channelOptions, "grpc.max_receive_message_length": maxAnswerBytes };
      const next = { version, client: new IstioCertificateServiceClient(controlPlane.target, credentials, options) };
      channel?.client.close();
      channel = next;
      return next;
    } catch (thrown) {
      if (channel !== undefined) return channel;
      throw new MeshError("PKI_CA_UNAVAILABLE", "cannot open a channel to the CA", { cause: thrown });
    }
  };

  return {
    async sign(request, { signal }) {
      signal.throwIfAborted();
      const { client } = await current();
      const metadata = await controlPlane.metadata().catch((cause: unknown) => {
        throw new MeshError("PKI_CA_UNAVAILABLE", "cannot authenticate to the CA", { cause });
      });
      signal.throwIfAborted();
      return new Promise((resolve, reject) => {
        const onAbort = (): void => {
          call.cancel();
          reject(signal.reason);
        };
        const call = client.createCertificate(message(request, impersonate), metadata, { deadline: Date.now() + deadlineMs }, (error, answer) => {
          signal.removeEventListener("abort", onAbort);
          if (error === null) resolve(answer.certChain);
          else reject(explain(error, controlPlane.target, request));
        });
        signal.addEventListener("abort", onAbort, { once: true });
      });
    },
    async [Symbol.asyncDispose]() {
      channel?.client.close();
      channel = undefined;
    },
  };
}

function message({ csr, identity, ttlMs }: CertificateRequest, impersonate: boolean) {
  return { csr, validityDuration: Math.round(ttlMs / 1000), metadata: impersonate ? { ImpersonatedIdentity: identity } : undefined };
}

const refusals: readonly status[] = [status.UNAUTHENTICATED, status.PERMISSION_DENIED, status.INVALID_ARGUMENT, status.UNIMPLEMENTED];

function explain(error: ServiceError, target: string, { identity }: CertificateRequest): MeshError {
  const details = { status: status[error.code] };
  if (refusals.includes(error.code)) {
    const hint =
      error.code === status.UNIMPLEMENTED
        ? "is this the control plane's port?"
        : "is a pod of this service account running on this node, and is our token accepted? The controller's log says which check failed";
    return new MeshError("PKI_CA_REFUSED", `the CA at ${target} refused a certificate for ${identity}; ${hint}`, { cause: error, details });
  }
  const hint =
    error.code === status.DEADLINE_EXCEEDED
      ? "it did not answer in time"
      : "is the controller running, is its name resolvable, and is its certificate signed by the mounted root?";
  return new MeshError("PKI_CA_UNAVAILABLE", `no certificate for ${identity} from the CA at ${target}; ${hint}`, { cause: error, details });
}
