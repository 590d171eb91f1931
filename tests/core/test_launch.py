"""What a started process does on its own: imports that last."""

import gc

import pytest

from tinyr1.core import launch


def imports(error: Exception | None) -> None:
    with launch.lasting_imports():
        assert not gc.isenabled()
        if error:
            raise error


@pytest.mark.parametrize("error", [None, ImportError("no such module")])
def test_garbage_is_collected_again_after_imports(error):
    frozen = gc.get_freeze_count()
    try:
        if error:
            with pytest.raises(ImportError):
                imports(error)
        else:
            imports(None)
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen, "what was imported stays"
    finally:
        gc.unfreeze()
