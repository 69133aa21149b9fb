/** Enrols pods on a node: CNI plugin, redirection rules, hand-over to ztunnel. */
export { type AgentOptions, runAgent } from "./app.ts";
export { type AgentConfig, readConfig } from "./config.ts";
export { type CaptureOptions, type Enrolment, type EnrolmentOptions, enrolmentOf, type LeftOutReason } from "./enrolment.ts";
export { hostRules } from "./host-rules.ts";
export { podRules, podRulesRemoval, type RuleOptions } from "./rules.ts";
export { type PodRedirection, podRedirection } from "./rules-apply.ts";
export { ZdsServer, type ZdsServerOptions } from "./zds-server.ts";
