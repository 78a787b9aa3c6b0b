# SPDX-License-Identifier: Apache-2.0
"""The parts of KubernetesExecutor: everything that talks to an API server runs on one asyncio thread."""
