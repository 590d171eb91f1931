"""The kernel that executes a notebook: this interpreter, in the environment of every child.

    manager(passing) --> class for nbclient --starts--> sys.executable -m ipykernel_launcher
                                                        env: surroundings.for_child

No folder is searched for a kernel of the name `python3`: JUPYTER_PATH and home folders hold those of other Pythons.
"""

from typing import Any

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from traitlets import default

from tinyr1.core import surroundings


def manager(passing: tuple[str, ...] = ()) -> type[AsyncKernelManager]:
    """A class of kernel managers for nbclient, which makes one object of it for each notebook.

    passing: names of variables that the kernel gets besides those of every child.
    """

    class OwnKernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _kernel_spec_manager_default(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])  # without folders there is the native kernel, and no other

        async def start_kernel(self, **kw: Any) -> None:  # type: ignore[override]  # the library's is made from a coroutine
            await super().start_kernel(env=surroundings.for_child(passing=passing), **kw)

    return OwnKernel
