/** `$(NAME)` in commands, arguments and environment values, as Kubernetes expands it. Pure. */

/** Known names are replaced, unknown ones stay as they are written, and `$$` is a literal dollar sign. */
export function expandVariables(text: string, variables: Readonly<Record<string, string>>): string {
  return text.replace(/\$(\$|\(([^)]*)\))/g, (written, next: string, name: string | undefined) => {
    if (next === "$") return "$";
    return name !== undefined && Object.hasOwn(variables, name) ? (variables[name] ?? "") : written;
  });
}
