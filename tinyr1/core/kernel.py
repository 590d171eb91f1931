"""The kernel that executes a notebook: this interpreter, in the environment of every child.

    Kernel.manager --> class for nbclient --starts--> sys.executable -m ipykernel_launcher
                            |                         env: surroundings.for_child
                            \\-- each second: memory, and whether it lives --> Kernel.told: how it ended, in a sentence

No folder is searched for a kernel of the name `python3`: JUPYTER_PATH and home folders hold those of other Pythons.
"""

from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from tinyr1.core import endings, surroundings


class Kernel:
    """One kernel, to be started by nbclient, and what became of it.

    passing: names of variables that it gets besides those of every child. status: its exit status as `subprocess` has
    it, None while it lives and where it was told to end.
    """

    def __init__(self, passing: tuple[str, ...] = ()) -> None:
        self.passing, self.memory = passing, endings.Memory()
        self.status: int | None = None

    @property
    def manager(self) -> type[AsyncKernelManager]:
        """The class of kernel managers of which nbclient makes one object."""
        kernel = self

        class OwnKernel(AsyncKernelManager):
            @default("kernel_spec_manager")
            def _kernel_spec_manager_default(self) -> KernelSpecManager:
                return KernelSpecManager(kernel_dirs=[])  # without folders there is the native kernel, and no other

            async def start_kernel(self, **kw: Any) -> None:  # type: ignore[override]  # theirs is a coroutine too
                await super().start_kernel(env=surroundings.for_child(passing=kernel.passing), **kw)

            async def _async_is_alive(self) -> bool:  # nbclient and the client of the kernel ask by this name
                if self.provisioner is not None and self.provisioner.has_process and not self.shutting_down:
                    kernel.status = await self.provisioner.poll()
                    pid: int | None = getattr(self.provisioner, "pid", None)  # where it is a process of this machine
                    if kernel.status is None and pid is not None:
                        kernel.memory.look(pid)
                return await super()._async_is_alive()

            is_alive = _async_is_alive

        return OwnKernel

    @property
    def told(self) -> str:
        """How the kernel ended, in a sentence."""
        return f"the process of the notebook {endings.told(self.status or 0, self.memory)}"
