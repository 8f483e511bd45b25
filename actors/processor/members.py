"""The instances of a group as a job processor sees them: read from the ledger when it looks at them."""

from collections.abc import Iterator, Sequence
from typing import overload

from actors.processor.groups import OpenGroup
from protocol.clock import Moment
from protocol.ledger import Instance, pages
from protocol.messages import DescribedInstance
from protocol.states import InstanceState


class Members(Sequence[DescribedInstance]):
    """The Grouped instances of a group.

    Args:
        group: the group.
    """

    def __init__(self, group: OpenGroup) -> None:
        self._group = group
        self._read: list[DescribedInstance] | None = None

    def __len__(self) -> int:
        return self._group.instances

    @overload
    def __getitem__(self, index: int) -> DescribedInstance: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DescribedInstance]: ...
    def __getitem__(self, index: int | slice) -> DescribedInstance | Sequence[DescribedInstance]:
        if self._read is None:
            self._read = [instance for page in self.pages() for instance in page]
        return self._read[index]

    def pages(self) -> Iterator[list[DescribedInstance]]:
        """Read them, a page at a time.

        Raises:
            peewee.PeeweeException: the ledger does not answer.
        """
        query = Instance.select().where(
            (Instance.group_id == self._group.group_id) & (Instance.state == InstanceState.GROUPED)
        )
        for rows in pages(query.namedtuples(), Instance.identifier):
            yield [
                DescribedInstance(
                    identifier=row.identifier,
                    stored=Moment(row.stored_wall_ns, row.stored_boot_ns, row.boot),
                    size=row.size,
                    dataset_offset=row.dataset_offset,
                    called_ae_title=row.called_ae_title,
                    calling_ae_title=row.calling_ae_title,
                    host=row.host,
                    sop_class_uid=row.sop_class_uid,
                    sop_instance_uid=row.sop_instance_uid,
                    transfer_syntax_uid=row.transfer_syntax_uid,
                    study_uid=row.study_uid,
                    series_uid=row.series_uid,
                    patient_id=row.patient_id,
                    attributes=row.attributes,
                )
                for row in rows
            ]
