/** Failures as Kubernetes reports them: an HTTP code and a `Status` object with a reason that clients switch on. */
import { MeshError } from "@fairway/runtime";

export interface StatusCause {
  readonly reason: string;
  readonly message: string;
  readonly field?: string;
}

export interface StatusDetails {
  readonly name?: string;
  readonly group?: string;
  readonly kind?: string;
  readonly uid?: string;
  readonly causes?: readonly StatusCause[];
  readonly retryAfterSeconds?: number;
}

/** One finding of validation, in the words of the reference (`spec.ports[0].port: Required value`). */
export interface FieldError {
  readonly kind:
    | "FieldValueRequired"
    | "FieldValueInvalid"
    | "FieldValueDuplicate"
    | "FieldValueNotSupported"
    | "FieldValueForbidden"
    | "FieldValueTypeInvalid";
  readonly field: string;
  readonly detail: string;
}

interface ResourceName {
  readonly group: string;
  readonly plural: string;
}

/** Thrown anywhere in a request; the edge writes `status()` to the client. */
export class ApiError extends MeshError<"LOCAL_CLUSTER_API"> {
  readonly httpCode: number;
  readonly reason: string;
  readonly statusDetails: StatusDetails;

  constructor(httpCode: number, reason: string, message: string, statusDetails: StatusDetails = {}, cause?: unknown) {
    super("LOCAL_CLUSTER_API", message, { ...(cause === undefined ? {} : { cause }), details: { httpCode, reason } });
    this.httpCode = httpCode;
    this.reason = reason;
    this.statusDetails = statusDetails;
  }

  status(): Record<string, unknown> {
    return {
      kind: "Status",
      apiVersion: "v1",
      metadata: {},
      status: "Failure",
      message: this.message,
      reason: this.reason,
      ...(Object.keys(this.statusDetails).length === 0 ? {} : { details: this.statusDetails }),
      code: this.httpCode,
    };
  }

  static badRequest(message: string): ApiError {
    return new ApiError(400, "BadRequest", message);
  }

  static unauthorized(): ApiError {
    return new ApiError(401, "Unauthorized", "Unauthorized");
  }

  static notFound(type: ResourceName, name: string): ApiError {
    return new ApiError(404, "NotFound", `${qualified(type)} ${JSON.stringify(name)} not found`, details(type, name));
  }

  /** No such path: kubectl and helm take exactly this for "the server does not have this type". */
  static noResource(): ApiError {
    return new ApiError(404, "NotFound", "the server could not find the requested resource");
  }

  static methodNotAllowed(method: string): ApiError {
    return new ApiError(405, "MethodNotAllowed", `the server does not allow this method on the requested resource (${method.slice(0, 16)})`);
  }

  static alreadyExists(type: ResourceName, name: string): ApiError {
    return new ApiError(409, "AlreadyExists", `${qualified(type)} ${JSON.stringify(name)} already exists`, details(type, name));
  }

  static conflict(type: ResourceName, name: string, why: string, causes?: readonly StatusCause[]): ApiError {
    const message = `Operation cannot be fulfilled on ${qualified(type)} ${JSON.stringify(name)}: ${why}`;
    return new ApiError(409, "Conflict", message, { ...details(type, name), ...(causes === undefined ? {} : { causes }) });
  }

  static staleVersion(type: ResourceName, name: string): ApiError {
    return ApiError.conflict(type, name, "the object has been modified; please apply your changes to the latest version and try again");
  }

  static expired(message: string): ApiError {
    return new ApiError(410, "Expired", message);
  }

  static tooLarge(limit: number): ApiError {
    return new ApiError(413, "RequestEntityTooLarge", `Request entity too large: limit is ${limit}`);
  }

  static unsupportedMediaType(type: string): ApiError {
    return new ApiError(415, "UnsupportedMediaType", `the body of the request was in an unknown format (${type.slice(0, 120)})`);
  }

  static forbidden(type: ResourceName, name: string, why: string): ApiError {
    return new ApiError(403, "Forbidden", `${qualified(type)}${name === "" ? "" : ` ${JSON.stringify(name)}`} is forbidden: ${why}`, details(type, name));
  }

  static invalid(kind: string, group: string, name: string, errors: readonly FieldError[]): ApiError {
    const lines = errors.map((error) => `${error.field}: ${error.detail}`);
    const text = lines.length === 1 ? lines.join("") : `[${lines.join(", ")}]`;
    return new ApiError(422, "Invalid", `${kind}${group === "" ? "" : `.${group}`} ${JSON.stringify(name)} is invalid: ${text}`, {
      ...(name === "" ? {} : { name }),
      ...(group === "" ? {} : { group }),
      kind,
      causes: errors.map((error) => ({ reason: error.kind, message: error.detail, field: error.field })),
    });
  }

  static tooManyRequests(message: string): ApiError {
    return new ApiError(429, "TooManyRequests", message, { retryAfterSeconds: 1 });
  }

  static internal(cause: unknown): ApiError {
    return new ApiError(500, "InternalError", "Internal error occurred; see the API server's log", {}, cause);
  }
}

export const required = (field: string, hint = ""): FieldError => ({
  kind: "FieldValueRequired",
  field,
  detail: hint === "" ? "Required value" : `Required value: ${hint}`,
});

export const invalid = (field: string, value: unknown, why: string): FieldError => ({
  kind: "FieldValueInvalid",
  field,
  detail: `Invalid value: ${shown(value)}: ${why}`,
});

/** A value for an error message, short enough to never carry a document back. */
export function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? "null";
  return text.length > 256 ? `${text.slice(0, 256)}…` : text;
}

function qualified(type: ResourceName): string {
  return type.group === "" ? type.plural : `${type.plural}.${type.group}`;
}

function details(type: ResourceName, name: string): StatusDetails {
  return { ...(name === "" ? {} : { name }), ...(type.group === "" ? {} : { group: type.group }), kind: type.plural };
}
