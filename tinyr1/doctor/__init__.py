"""Whether a run can be carried out here, asked before its first stage works; and what machine this is.

    params file --checks--> Needs: of the machine, of every stage that has work left --examined, all at once--> Findings
    Findings --table--> text for a person: `make doctor RUN=name`, exit status 1 where something is missing
             --checks.require--> `make reproduce` refuses, in a sentence for each missing thing
    no run: describe --> versions, processor, memory, isolation, for a bug report: `make doctor`

Each stage keeps its needs in a module `needs` of its room, and works by the functions that they ask. Read checks first.
"""
