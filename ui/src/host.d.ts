// SPDX-License-Identifier: Apache-2.0
// The little that is used of what the host provides and the bundler understands.

declare module "react-router-dom" {
  import type { AnchorHTMLAttributes, FC } from "react";

  type Target = string | { pathname?: string; search?: string };

  export const Link: FC<AnchorHTMLAttributes<HTMLAnchorElement> & { to: Target }>;
  export function useSearchParams(): [
    URLSearchParams,
    (next: URLSearchParams, options?: { replace?: boolean }) => void,
  ];
}

declare module "*.css?inline" {
  const text: string;
  export default text;
}
