/** The cluster that is meant when none is named. */
export const defaultClusterName = "fairway";
